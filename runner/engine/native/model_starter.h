// One process that has loaded Lite's libraries, and oneDNN where our kernels need it, from which those of models are forked:
// to load and link them takes longer than a small model does.
//
// Its program sends one message for each model over the socket that is its standard input (SOCK_SEQPACKET):
//
//   TYPE DEVICE DEVICE_ID THREADS PRECISION KERNELS
//
// with the descriptors of the model's socket, its leash, MEMORY, MODEL and PIECES (bridge.cc says what they are) and, unless
// the log goes where the starter's does, the log. The leash is a socket, too: where the program closes it, or its writing end,
// the model's process is killed; once that has ended, its wait status, an int, is sent over it. Before the first message the
// starter sends a byte: the libraries are there. It ends with its program, or when that closes the socket, and so do the
// processes of its models.

#ifndef KANDINSKY_MINDIR_MODEL_STARTER_H
#define KANDINSKY_MINDIR_MODEL_STARTER_H

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <sstream>
#include <string>
#include <vector>

#include <poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "follow_parent.h"

class ModelStarter {
 public:
  // Returns in the process of each model, with the words of its command line; in this process it does not return. There must be
  // no thread yet: a forked process has none but the one that calls.
  static std::vector<std::string> Serve() {
    ModelStarter starter;
    std::vector<std::string> words;
    while (words.empty()) {
      words = starter.Turn();
    }
    return words;
  }

 private:
  enum { kSocket, kLeash, kMemory, kModel, kPieces, kLog, kMost };  // the descriptors of a message

  struct Process {
    pid_t pid;
    int leash;
    bool killed = false;
  };

  ModelStarter() : parent_(OpenParent()) {
    std::signal(SIGCHLD, SIG_DFL);  // where it is ignored, as a parent may have left it, no status is kept
    sigemptyset(&ends_);
    sigaddset(&ends_, SIGCHLD);
    sigprocmask(SIG_BLOCK, &ends_, nullptr);
    signals_ = signalfd(-1, &ends_, SFD_CLOEXEC | SFD_NONBLOCK);
    dup2(STDERR_FILENO, STDOUT_FILENO);  // whatever the libraries print
    if (signals_ < 0 || send(STDIN_FILENO, "", 1, MSG_NOSIGNAL) != 1) {
      Fail("the system gives no signals as a file");
    }
  }

  [[noreturn]] static void Fail(const char *reason) {
    std::fprintf(stderr, "%s: %s\n", reason, std::strerror(errno));
    _exit(1);
  }

  // Waits for something to do, and does it. In a new process: its words.
  std::vector<std::string> Turn() {
    std::vector<pollfd> watched = {{STDIN_FILENO, POLLIN, 0}, {signals_, POLLIN, 0}, {parent_, POLLIN, 0}};
    for (const auto &process : processes_) {
      watched.push_back({process.killed ? -1 : process.leash, POLLIN, 0});
    }
    if (poll(watched.data(), watched.size(), -1) < 0) {
      return {};
    }
    if (watched[2].revents != 0) {
      _exit(1);
    }
    for (size_t i = 0; i < processes_.size(); ++i) {
      if (watched[3 + i].revents != 0) {
        kill(processes_[i].pid, SIGKILL);  // it has not been waited for: the number is still its own
        processes_[i].killed = true;
      }
    }
    if (watched[1].revents != 0) {
      WaitForEnded();
    }
    return watched[0].revents != 0 ? Start() : std::vector<std::string>();
  }

  void WaitForEnded() {
    signalfd_siginfo told;
    while (read(signals_, &told, sizeof(told)) > 0) {
    }
    int status = 0;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
      const auto ended = std::find_if(processes_.begin(), processes_.end(), [pid](const Process &each) { return each.pid == pid; });
      if (ended != processes_.end()) {
        send(ended->leash, &status, sizeof(status), MSG_NOSIGNAL);
        close(ended->leash);
        processes_.erase(ended);
      }
    }
  }

  // Takes a message and forks.
  std::vector<std::string> Start() {
    char text[256];
    alignas(cmsghdr) char space[CMSG_SPACE(kMost * sizeof(int))];
    iovec part{text, sizeof(text)};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = space;
    message.msg_controllen = sizeof(space);
    const ssize_t size = recvmsg(STDIN_FILENO, &message, MSG_CMSG_CLOEXEC);
    if (size <= 0) {
      _exit(0);
    }
    const cmsghdr *sent = CMSG_FIRSTHDR(&message);
    const size_t count = sent == nullptr ? 0 : (sent->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    if (count < kLog || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
      Fail("a model's descriptors do not arrive");
    }
    int files[kMost];
    files[kLog] = -1;
    std::memcpy(files, CMSG_DATA(sent), count * sizeof(int));
    const pid_t pid = fork();
    if (pid == 0) {
      return Become(files, std::string(text, static_cast<size_t>(size)));
    }
    if (pid < 0) {
      dprintf(files[kSocket], "error no process can be made for it: %s\n", std::strerror(errno));
      close(files[kLeash]);
    } else {
      processes_.push_back({pid, files[kLeash]});
    }
    for (const int file : files) {
      if (file != files[kLeash]) {
        close(file);
      }
    }
    return {};
  }

  // Makes this forked process one that was started for a model.
  std::vector<std::string> Become(const int (&files)[kMost], const std::string &text) {
    for (const auto &process : processes_) {
      close(process.leash);
    }
    dup2(files[kSocket], STDIN_FILENO);
    dup2(files[kSocket], STDOUT_FILENO);
    if (files[kLog] >= 0) {
      dup2(files[kLog], STDERR_FILENO);
    }
    for (const int file : {parent_, signals_, files[kSocket], files[kLeash], files[kLog]}) {
      close(file);
    }
    sigprocmask(SIG_UNBLOCK, &ends_, nullptr);
    const auto path = [](int file) { return "/proc/self/fd/" + std::to_string(file); };
    std::vector<std::string> words = {path(files[kModel])};
    std::istringstream given(text);
    for (std::string word; given >> word;) {
      words.push_back(word);
    }
    words.push_back(std::to_string(files[kMemory]));
    words.push_back(path(files[kPieces]));
    return words;
  }

  int parent_, signals_ = -1;
  sigset_t ends_;
  std::vector<Process> processes_;
};

#endif
