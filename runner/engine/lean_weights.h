// Memory of a `.ms` model in which its weights take none.
//
// Lite 2.0 copies a `.ms` file into memory of its own (PackWeight, one posix_memalign as large as the file) and keeps the
// copy as long as the model, although matrix products and convolutions then make packed copies of their weights and never
// read the file's again. LeanWeights lays under that memory the file itself, and in it the weight files that it was made
// of: their pages belong to the system's cache of files, where no copy is made of them and from where the system takes
// them when it needs memory. What Lite writes to becomes its own (MAP_PRIVATE), and a file on disk never changes.
//
// The weight files stay open: replaced by others they are still there. If one is written to or cut while the model is
// loaded, a run fails with an error that names it (Check), since it may have read something else.

#ifndef KANDINSKY_MINDIR_LEAN_WEIGHTS_H
#define KANDINSKY_MINDIR_LEAN_WEIGHTS_H

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

class LeanWeights {
 public:
  // file: descriptor of the `.ms` file, in memory. table: lines "POSITION LENGTH OFFSET PATH": which stretches of it are
  // whole pages of another file (runner/ms_file.py: Piece). replies: descriptor for the last words, "error TEXT".
  LeanWeights(int file, size_t size, const char *table, int replies)
      : size_(std::max(size, kPooled + kPage)), replies_(replies) {
    lent_ = static_cast<char *>(aligned_alloc(kPage, (size_ + 2 * kPage - 1) / kPage * kPage));  // Lite may free it
    if (lent_ == nullptr || ftruncate(file, static_cast<off_t>(size_)) != 0) {
      throw std::runtime_error("there is no room for the file");
    }
    Map(0, size_, file, 0);
    std::ifstream lines(table);
    size_t position, length, offset;
    for (std::string path; lines >> position >> length >> offset && std::getline(lines >> std::ws, path);) {
      if (position > size || length > size - position) {
        throw std::runtime_error("a weight lies beyond its end");
      }
      Map(position, length, sources_.try_emplace(path, path).first->second.file, offset);
    }
    current_ = this;
    struct sigaction action{};
    action.sa_handler = OnFault;
    sigaction(SIGBUS, &action, nullptr);
  }
  ~LeanWeights() { current_ = nullptr; }
  LeanWeights(const LeanWeights &) = delete;
  LeanWeights &operator=(const LeanWeights &) = delete;

  // The file, to build the model from: where Lite will copy it to, so that nothing is left to copy.
  const void *data() const { return lent_; }
  size_t size() const { return size_; }

  // The memory that Lite asks for to copy the file into; nullptr if it is for something else.
  void *Memory(size_t size) {
    return size < size_ || size >= size_ + kPage || lent_once_.test_and_set() ? nullptr : lent_;
  }

  // To be called once the model is built: lends nothing from then on.
  void EndLending() { lent_once_.test_and_set(); }

  // Throws if a weight file is not what it was when the model was built.
  void Check() const {
    if (const Source *changed = Changed()) {
      throw std::runtime_error(changed->path + kChanged);
    }
  }

  static LeanWeights *current() { return current_; }

 private:
  static constexpr size_t kPage = 1 << 16;  // at least the machine's
  static constexpr size_t kPooled = size_t{1} << 28;  // up to here Lite takes a share of a block of so much: the file must
                                                      // be larger, if only by a hole at its end
  static constexpr const char *kChanged =
    " was changed on disk while a graph made from it was loaded: export the bundle again";

  // A weight file, open as long as the process lives.
  struct Source {
    explicit Source(const std::string &name) : path(name), file(open(name.c_str(), O_RDONLY)) {
      if (file < 0 || fstat(file, &status) != 0) {
        throw std::runtime_error(path + " cannot be opened");
      }
    }

    // Whether it was written to or cut since it was opened. (The runner compares it with the manifest after that.)
    bool Changed() const {
      struct stat now{};
      return fstat(file, &now) != 0 || now.st_size != status.st_size || now.st_mtim.tv_sec != status.st_mtim.tv_sec ||
             now.st_mtim.tv_nsec != status.st_mtim.tv_nsec;
    }

    std::string path;
    int file;
    struct stat status{};
  };

  void Map(size_t position, size_t length, int file, size_t offset) {
    constexpr int kFlags = MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE;
    if (mmap(lent_ + position, length, PROT_READ | PROT_WRITE, kFlags, file, static_cast<off_t>(offset)) == MAP_FAILED) {
      throw std::runtime_error("its weights cannot be mapped");
    }
  }

  const Source *Changed() const {
    const auto found = std::find_if(sources_.begin(), sources_.end(), [](const auto &each) { return each.second.Changed(); });
    return found == sources_.end() ? nullptr : &found->second;
  }

  // A page is gone: that of a file which has been cut. In a signal handler: nothing but system calls.
  static void OnFault(int signal) {
    const Source *changed = current_ == nullptr ? nullptr : current_->Changed();
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

  size_t size_;
  int replies_;
  std::map<std::string, Source> sources_;
  char *lent_ = nullptr;
  std::atomic_flag lent_once_ = ATOMIC_FLAG_INIT;  // set once it has been lent, or may no longer be
  static inline LeanWeights *current_ = nullptr;
};

// In place of the C library's, for Lite's libraries too.
extern "C" int posix_memalign(void **memory, size_t alignment, size_t size) {
  LeanWeights *lean = LeanWeights::current();
  *memory = lean == nullptr ? nullptr : lean->Memory(size);
  if (*memory == nullptr) {
    *memory = aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  }
  return *memory == nullptr ? ENOMEM : 0;
}

#endif
