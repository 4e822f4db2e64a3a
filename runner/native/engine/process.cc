#include "engine/process.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <regex>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

namespace kandinsky {

namespace {

constexpr int kSlice = 100;  // milliseconds of one look
constexpr size_t kBytesRead = size_t{1} << 20;
constexpr const char *kLargePages = "glibc.malloc.hugetlb=1";  // for packed weights: fewer page faults and address misses

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

LiteLog::LiteLog() {
  const char *level = std::getenv("GLOG_v");
  if (level == nullptr || !(std::strcmp(level, "0") == 0 || std::strcmp(level, "1") == 0 || std::strcmp(level, "2") == 0)) {
    file_ = MemoryFile("kandinsky-mindir-log");
  }
}

void LiteLog::Clear() {
  if (file_) {
    lseek(file_.get(), 0, SEEK_SET);  // the program shares the offset
    if (ftruncate(file_.get(), 0) != 0) {
      return;  // old lines stay
    }
  }
}

std::string LiteLog::Reason() const {
  static const std::regex kError(R"(^\[ERROR\] \w+\(.*?\):\S+ \[.*?\] (\w+)\] (.*)$)");
  std::string first, text = Read();
  for (size_t start = 0; start < text.size();) {
    const size_t end = std::min(text.find('\n', start), text.size());
    const std::string line = text.substr(start, std::min<size_t>(end - start, 4096));
    start = end + 1;
    std::smatch match;
    if (!std::regex_search(line, match, kError) || match[2] == "prim is nullptr" ||
        match[2] == "Runtime error for null exception handler.") {  // logged for graphs that run well, too
      continue;
    }
    const std::string error = match[1].str() + ": " + match[2].str();
    if (error.find("Catch exception: ") != std::string::npos) {
      return error;
    }
    first = first.empty() ? error : first;
  }
  return first;
}

std::string LiteLog::LastLine() const {
  std::string text = Read();
  text.erase(text.find_last_not_of(" \t\r\n") + 1);
  return text.substr(text.rfind('\n') + 1);
}

std::string LiteLog::Read() const {
  std::string text(file_ ? kBytesRead : 0, '\0');
  const ssize_t count = file_ ? pread(file_.get(), text.data(), text.size(), 0) : 0;
  text.resize(static_cast<size_t>(std::max<ssize_t>(count, 0)));
  return text;
}

BridgeProcess::BridgeProcess(const std::vector<std::string> &command, const std::vector<int> &inherited, std::string name,
                             double deadline, const Stop *stop)
    : name_(std::move(name)), deadline_(deadline), stop_(stop) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    throw EngineError(name_ + ": MindSpore Lite does not start: " + Reason(errno));
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
  for (const int file : inherited) {
    posix_spawn_file_actions_adddup2(&actions, file, file);  // stays open
  }
  std::vector<std::string> words = command, variables = Environment(log_.file() >= 0);
  const int status = posix_spawn(&pid_, command[0].c_str(), &actions, &attributes, Pointers(&words).data(), Pointers(&variables).data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (status != 0) {
    pid_ = -1;
    throw EngineError(name_ + ": MindSpore Lite does not start: " + Reason(status) + " (" + command[0] + ")");
  }
}

std::string BridgeProcess::Line() {
  size_t end;
  while ((end = received_.find('\n')) == std::string::npos) {
    Wait();
    char block[1 << 14];
    const ssize_t count = recv(socket_.get(), block, sizeof(block), 0);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count <= 0) {
      const std::string cause = CauseOfDeath();
      Close();
      throw EngineError(name_ + ": " + cause);
    }
    received_.append(block, static_cast<size_t>(count));
  }
  const std::string line = received_.substr(0, end);
  received_.erase(0, end + 1);
  if (line.rfind("error ", 0) == 0) {
    Refuse(line.substr(6));
  }
  return line;
}

void BridgeProcess::Run() {
  if (!usable()) {
    throw EngineError(name_ + ": a run of it has not ended: load it again");
  }
  log_.Clear();
  const std::string number = std::to_string(++requests_), request = number + "\n";
  if (send(socket_.get(), request.data(), request.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(request.size())) {
    const std::string cause = CauseOfDeath();
    Close();
    throw EngineError(name_ + ": " + cause);
  }
  const std::string answer = Line();
  if (answer.rfind("failed " + number + " ", 0) == 0) {
    Refuse(answer.substr(8 + number.size()));
  }
  if (answer != "done " + number) {
    Close();
    throw EngineError(name_ + ": MindSpore Lite's process answered '" + answer + "' to request " + number + ": load it again");
  }
}

void BridgeProcess::Close() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);  // it holds no state worth a farewell
    socket_.Close();
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
  }
}

void BridgeProcess::Wait() {
  for (double left = deadline_; left > 0; left -= kSlice / 1000.0) {
    if (stop_ != nullptr && stop_->asked()) {
      Close();
      throw Stopped();
    }
    pollfd watched{socket_.get(), POLLIN, 0};
    if (poll(&watched, 1, static_cast<int>(std::min<double>(kSlice, std::max(1.0, left * 1000)))) > 0) {
      return;
    }
  }
  Close();
  char seconds[32];
  std::snprintf(seconds, sizeof(seconds), "%g", deadline_);
  throw EngineError(name_ + ": MindSpore Lite has not answered for " + seconds + " s and was ended: if it only needs longer, set "
                    "KANDINSKY_MINDIR_DEADLINE to more seconds");
}

std::string BridgeProcess::CauseOfDeath() {
  int status = 0;
  pid_t ended;
  while ((ended = waitpid(pid_, &status, 0)) < 0 && errno == EINTR) {
  }
  const bool known = ended == pid_;  // the program around this library may have waited for it
  pid_ = -1;
  if (known && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
    return "MindSpore Lite was killed, as the system does when memory runs out";
  }
  return std::string("MindSpore Lite ended") +
         (known ? WIFSIGNALED(status) ? " with signal " + std::to_string(WTERMSIG(status))
                                      : " with status " + std::to_string(WEXITSTATUS(status)) : "") + ": " + log_.LastLine();
}

void BridgeProcess::Refuse(const std::string &text) {
  const std::string reason = log_.Reason();
  Close();
  throw EngineError(name_ + ": MindSpore Lite cannot use it: " + (reason.empty() ? text : reason));
}

}  // namespace kandinsky
