#include "engine/starter.h"

#include <cerrno>
#include <csignal>
#include <cstring>

#include <fcntl.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

namespace kandinsky {

namespace {

constexpr const char *kLargePages = "glibc.malloc.hugetlb=1";  // for packed weights: fewer page faults and address misses
constexpr size_t kMostDescriptors = 8;

// The variables of this process, for one whose log is read here.
std::vector<std::string> Environment(bool log) {
  std::vector<std::string> variables;
  std::string tunables = kLargePages;
  for (char **entry = environ; *entry != nullptr; ++entry) {
    const std::string variable = *entry;
    if (variable.rfind("GLIBC_TUNABLES=", 0) == 0) {
      tunables += ":" + variable.substr(15);  // the user's come last, and win
    } else if (!log || variable.rfind("GLOG_v=", 0) != 0) {
      variables.push_back(variable);
    }
  }
  variables.push_back("GLIBC_TUNABLES=" + tunables);
  if (log) {
    variables.push_back("GLOG_v=3");  // errors: enough to quote the reason when a graph is refused
  }
  return variables;
}

std::vector<char *> Pointers(std::vector<std::string> *texts) {
  std::vector<char *> pointers;
  for (auto &text : *texts) {
    pointers.push_back(text.data());
  }
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

Starter::Starter(const std::string &bridge, const std::string &kernels) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    throw EngineError("MindSpore Lite does not start: " + Reason(errno));
  }
  socket_ = Descriptor(ends[0]);
  const Descriptor given(ends[1]);
  const Descriptor theirs(fcntl(given.get(), F_DUPFD_CLOEXEC, 3));  // else it may be in the way of 0, 1 and 2
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  sigset_t none;
  sigemptyset(&none);
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  posix_spawn_file_actions_adddup2(&actions, theirs.get(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, theirs.get(), STDOUT_FILENO);
  if (log_.file() >= 0) {
    posix_spawn_file_actions_adddup2(&actions, log_.file(), STDERR_FILENO);
  }
  std::vector<std::string> words = {bridge, "start", kernels}, variables = Environment(log_.file() >= 0);
  const int status = posix_spawn(&pid_, bridge.c_str(), &actions, &attributes, Pointers(&words).data(), Pointers(&variables).data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (status != 0) {
    pid_ = -1;
    throw EngineError("MindSpore Lite does not start: " + Reason(status) + " (" + bridge + ")");
  }
}

Starter::~Starter() { CauseOfDeath(); }

bool Starter::Send(const std::string &message, const std::vector<int> &descriptors) const {
  alignas(cmsghdr) char space[CMSG_SPACE(kMostDescriptors * sizeof(int))] = {};
  iovec part{const_cast<char *>(message.data()), message.size()};
  msghdr sent{};
  sent.msg_iov = &part;
  sent.msg_iovlen = 1;
  sent.msg_control = space;
  sent.msg_controllen = CMSG_SPACE(descriptors.size() * sizeof(int));
  cmsghdr *header = CMSG_FIRSTHDR(&sent);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(descriptors.size() * sizeof(int));
  std::memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size() * sizeof(int));
  ssize_t count;
  while ((count = sendmsg(socket_.get(), &sent, MSG_NOSIGNAL)) < 0 && errno == EINTR) {
  }
  return count == static_cast<ssize_t>(message.size());
}

bool Starter::ready() const {
  char byte;
  return recv(socket_.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

std::string Starter::CauseOfDeath() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (pid_ > 0) {
    kill(pid_, SIGKILL);  // this changes nothing for one that is ending by itself
    int status = 0;
    pid_t ended;
    while ((ended = waitpid(pid_, &status, 0)) < 0 && errno == EINTR) {
    }
    // The program around this library may have waited for it.
    cause_ = log_.CauseOfDeath(ended == pid_ ? std::optional<int>(status) : std::nullopt);
    pid_ = -1;
  }
  return cause_;
}

void Starters::Prepare() {
  const std::lock_guard<std::mutex> lock(mutex_);
  try {
    current_ = std::make_shared<Starter>(bridge_, kernels_);
  } catch (const EngineError &) {  // Start says why
  }
}

std::shared_ptr<Starter> Starters::Start(const std::string &message, const std::vector<int> &descriptors) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (current_ && current_->Send(message, descriptors)) {
    return current_;
  }
  current_.reset();
  current_ = std::make_shared<Starter>(bridge_, kernels_);
  if (!current_->Send(message, descriptors)) {
    throw EngineError(current_->CauseOfDeath());
  }
  return current_;
}

void Starters::End() {
  const std::lock_guard<std::mutex> lock(mutex_);
  current_.reset();
}

}  // namespace kandinsky
