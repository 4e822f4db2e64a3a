#include "engine/lite_log.h"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <regex>

#include <sys/wait.h>
#include <unistd.h>

namespace kandinsky {

namespace {

constexpr size_t kBytesRead = size_t{1} << 20;

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

std::string LiteLog::CauseOfDeath(std::optional<int> status) const {
  if (status && WIFSIGNALED(*status) && WTERMSIG(*status) == SIGKILL) {
    return "MindSpore Lite was killed, as the system does when memory runs out";
  }
  std::string text = Read();
  text.erase(text.find_last_not_of(" \t\r\n") + 1);
  return std::string("MindSpore Lite ended") +
         (!status ? "" : WIFSIGNALED(*status) ? " with signal " + std::to_string(WTERMSIG(*status))
                                              : " with status " + std::to_string(WEXITSTATUS(*status))) +
         ": " + text.substr(text.rfind('\n') + 1);
}

std::string LiteLog::Read() const {
  std::string text(file_ ? kBytesRead : 0, '\0');
  const ssize_t count = file_ ? pread(file_.get(), text.data(), text.size(), 0) : 0;
  text.resize(static_cast<size_t>(std::max<ssize_t>(count, 0)));
  return text;
}

}  // namespace kandinsky
