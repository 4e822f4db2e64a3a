// The start and the end of a program that another process starts for itself.

#ifndef KANDINSKY_MINDIR_FOLLOW_PARENT_H
#define KANDINSKY_MINDIR_FOLLOW_PARENT_H

#include <thread>

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434  // Linux 5.3; the same on every machine
#endif

// Opens those of descriptors 0, 1 and 2 that are closed: no other file may take their place, where libraries print.
inline void OpenStandardStreams() {
  int file = open("/dev/null", O_RDWR);
  while (file >= 0 && file <= STDERR_FILENO) {
    file = open("/dev/null", O_RDWR);
  }
  if (file >= 0) {
    close(file);
  }
}

// A descriptor that can be read from once the parent has ended; -1 on an older kernel: poll passes over it.
inline int OpenParent() { return static_cast<int>(syscall(SYS_pidfd_open, getppid(), 0)); }

// Ends this program at once, whatever it is doing, when its parent ends or closes the other end of `requests`, a socket or
// pipe (-1: none). The parent itself is watched since a process that was forked from it may hold that end open. Not
// PR_SET_PDEATHSIG: it follows the thread that started the program.
inline void FollowParent(int requests) {
  const int parent = OpenParent();
  std::thread([parent, requests] {
    pollfd watched[] = {{parent, POLLIN, 0}, {requests, 0, 0}};  // what is always told is POLLHUP and POLLERR
    while (poll(watched, 2, -1) <= 0) {
    }
    _exit(1);
  }).detach();
}

#endif
