// The files whose pages a loaded model uses as its weights.
//
// They stay open as long as the process lives: replaced by others they are still there. If one is written to or cut while
// the model is loaded, a run fails with an error that names it (Check), since it may have read something else.

#ifndef KANDINSKY_MINDIR_WEIGHT_FILES_H
#define KANDINSKY_MINDIR_WEIGHT_FILES_H

#include <algorithm>
#include <csignal>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

constexpr size_t kPage = 1 << 16;  // where a mapped weight may start: UNIT of runner/bundle/ms_layout.py, which lays them out

// `length` bytes of an open file from `offset` on, which Lite may write to: what it writes to becomes its own, and the file
// on disk never changes. where: addresses to lay them at; nullptr leaves it to the system.
inline char *MapPrivate(void *where, size_t length, int file, size_t offset) {
  const int flags = MAP_PRIVATE | MAP_NORESERVE | (where == nullptr ? 0 : MAP_FIXED);
  void *mapped = mmap(where, length, PROT_READ | PROT_WRITE, flags, file, static_cast<off_t>(offset));
  if (mapped == MAP_FAILED) {
    throw std::runtime_error("its weights cannot be mapped");
  }
  return static_cast<char *>(mapped);
}

class WeightFiles {
 public:
  // replies: descriptor for the last words of a process that reads from a file that was cut, "error TEXT".
  explicit WeightFiles(int replies) : replies_(replies) {
    current_ = this;
    struct sigaction action{};
    action.sa_handler = OnFault;
    sigaction(SIGBUS, &action, nullptr);
  }
  ~WeightFiles() { current_ = nullptr; }
  WeightFiles(const WeightFiles &) = delete;
  WeightFiles &operator=(const WeightFiles &) = delete;

  // The descriptor of a file.
  int Open(const std::string &path) { return files_.try_emplace(path, path).first->second.descriptor; }

  // Throws if one is not what it was when it was opened.
  void Check() const {
    if (const File *changed = Changed()) {
      throw std::runtime_error(changed->path + kChanged);
    }
  }

 private:
  static constexpr const char *kChanged =
    " was changed on disk while a graph made from it was loaded: load the bundle again";

  struct File {
    explicit File(const std::string &name) : path(name), descriptor(open(name.c_str(), O_RDONLY)) {
      if (descriptor < 0 || fstat(descriptor, &status) != 0) {
        throw std::runtime_error(path + " cannot be opened");
      }
    }

    // Whether it was written to or cut since it was opened. (The runner compares it with the manifest after that.)
    bool Changed() const {
      struct stat now{};
      return fstat(descriptor, &now) != 0 || now.st_size != status.st_size || now.st_mtim.tv_sec != status.st_mtim.tv_sec ||
             now.st_mtim.tv_nsec != status.st_mtim.tv_nsec;
    }

    std::string path;
    int descriptor;
    struct stat status{};
  };

  const File *Changed() const {
    const auto found = std::find_if(files_.begin(), files_.end(), [](const auto &each) { return each.second.Changed(); });
    return found == files_.end() ? nullptr : &found->second;
  }

  // A page is gone: that of a file which has been cut. In a signal handler: nothing but system calls.
  static void OnFault(int signal) {
    const File *changed = current_ == nullptr ? nullptr : current_->Changed();
    if (changed == nullptr) {
      std::signal(signal, SIG_DFL);  // it happens again, and ends the process as it would have
      return;
    }
    for (const char *text : {"error ", changed->path.c_str(), kChanged, "\n"}) {
      if (write(current_->replies_, text, std::strlen(text)) < 0) {
        break;
      }
    }
    _exit(1);
  }

  int replies_;
  std::map<std::string, File> files_;
  static inline WeightFiles *current_ = nullptr;
};

#endif
