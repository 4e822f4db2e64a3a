// Memory of a `.ms` model in one copy.
//
// Lite 2.0 copies a `.ms` file into memory of its own (PackWeight, one posix_memalign as large as the file) and keeps the
// copy as long as the model, although matrix products and convolutions then make packed copies of their weights and never
// read the file's again. LeanWeights lays the file itself under that memory, and after the load gives the pages of the
// weights back. Whatever is read after all faults, and comes back from the weight files it was made of.
//
// Why no number can change, whoever got the memory and whatever it is used for:
// - a stretch is given back only if after the load it holds, byte for byte, what would be brought back (Same);
// - reading or writing it then brings it back first, whole pages of its own and nothing beside them (Copy), and from then
//   on it is memory like any other, which may be written and freed: it lies inside a block of the C library's;
// - the weight files stay open: replaced by others they are still there, and if one is written to or cut, the process ends
//   with an error that names it (Changed) instead of bringing back something else.

#ifndef KANDINSKY_MINDIR_LEAN_WEIGHTS_H
#define KANDINSKY_MINDIR_LEAN_WEIGHTS_H

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

class LeanWeights {
 public:
  // file: descriptor of the `.ms` file, in memory. table: lines "POSITION LENGTH CHANNELS PIXELS OFFSET SOURCE": how
  // each stretch of it was made (runner/ms_file.py: Piece). replies: descriptor for the last words, "error TEXT".
  LeanWeights(int file, size_t size, const char *table, int replies)
      : file_(file), size_(std::max(size, kPooled + kPage)), replies_(replies) {
    std::ifstream lines(table);
    Stretch stretch{};
    for (std::string source; lines >> stretch.position >> stretch.length >> stretch.channels >> stretch.pixels >>
                               stretch.offset && std::getline(lines >> std::ws, source);) {
      const bool whole_numbers = stretch.pixels == 1 || stretch.position % 4 == 0;  // none lies in two pages
      if (stretch.length >= kSmallest && whole_numbers) {
        stretch.source = &sources_.try_emplace(source, source).first->second;
        stretches_.push_back(stretch);  // in order of position, as the table is
      }
    }
    void *block = aligned_alloc(kPage, Pages(size_) + kPage);  // so that Lite may free it
    void *back = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (block == nullptr || back == MAP_FAILED || ftruncate(file, static_cast<off_t>(size_)) != 0 ||
        mmap(block, size_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) == MAP_FAILED) {
      throw std::runtime_error("the file cannot be mapped");
    }
    back_ = static_cast<char *>(back);
    lent_ = static_cast<char *>(block);
    current_ = this;
  }
  ~LeanWeights() { current_ = nullptr; }
  LeanWeights(const LeanWeights &) = delete;
  LeanWeights &operator=(const LeanWeights &) = delete;

  // The file, to build the model from: where Lite will copy it to, so that nothing is left to copy.
  const void *data() const { return lent_; }
  size_t size() const { return size_; }

  // The memory that Lite asks for to copy the file into; nullptr if it is for something else.
  void *Memory(size_t size) {
    return size < size_ || size >= size_ + kPage || lending_.test_and_set() ? nullptr : lent_;
  }

  // To be called once the model is built: lends nothing from then on.
  void Release() {
    if (lending_.test_and_set()) {
      struct sigaction action{};
      action.sa_sigaction = OnFault;
      action.sa_flags = SA_SIGINFO;
      sigaction(SIGSEGV, &action, nullptr);
      sigaction(SIGBUS, &action, nullptr);
      for (auto &stretch : stretches_) {
        Release(&stretch);
      }
    }
  }

  static LeanWeights *current() { return current_; }

 private:
  static constexpr size_t kPage = 4096;
  static constexpr size_t kPooled = size_t{1} << 28;  // up to here Lite takes a share of a block of so much: the file must
                                                      // be larger, if only by a hole at its end
  static constexpr size_t kSmallest = 16 * kPage;  // below, it is not worth two system calls

  // A weight file, open as long as the process lives.
  struct Source {
    explicit Source(const std::string &name) : path(name), file(open(name.c_str(), O_RDONLY)) {
      void *mapped = file < 0 || fstat(file, &status) != 0
                       ? MAP_FAILED
                       : mmap(nullptr, static_cast<size_t>(status.st_size), PROT_READ, MAP_SHARED, file, 0);
      if (mapped == MAP_FAILED) {
        throw std::runtime_error(path + " cannot be mapped");
      }
      data = static_cast<const char *>(mapped);
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
    const char *data = nullptr;
  };

  struct Stretch {
    size_t position, length, channels, pixels, offset;
    const Source *source;
    bool released;

    // Its whole pages, which it shares with nothing.
    size_t begin() const { return Pages(position); }
    size_t end() const { return (position + length) / kPage * kPage; }
  };

  static size_t Pages(size_t size) { return (size + kPage - 1) / kPage * kPage; }

  void Release(Stretch *stretch) {
    Lock();  // Lite's threads may read it meanwhile
    copied_ = stretch->source;
    const size_t begin = stretch->begin(), size = stretch->end() - begin;
    if (Same(*stretch) && mprotect(lent_ + begin, size, PROT_NONE) == 0) {
      stretch->released = true;
      fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(begin), static_cast<off_t>(size));
    }
    copied_ = nullptr;
    Unlock();
  }

  static void OnFault(int signal, siginfo_t *info, void *) {
    if (!current_->Restore(static_cast<char *>(info->si_addr))) {
      std::signal(signal, SIG_DFL);  // it happens again, and ends the process as it would have
    }
  }

  // Brings back the stretch that holds the address; false if there is none.
  bool Restore(const char *address) {
    if (copied_ != nullptr && address >= copied_->data && address < copied_->data + copied_->status.st_size) {
      End(*copied_);  // SIGBUS: it ends before this address now
    }
    const auto place = static_cast<size_t>(address - lent_);
    auto next = std::upper_bound(stretches_.begin(), stretches_.end(), place,
                                 [](size_t value, const Stretch &stretch) { return value < stretch.begin(); });
    if (next == stretches_.begin() || place >= (next - 1)->end()) {
      return false;
    }
    Stretch &stretch = *(next - 1);
    Lock();  // several threads may read it at once
    if (stretch.released) {
      copied_ = stretch.source;
      Copy(stretch);
      if (copied_->Changed()) {
        End(*copied_);
      }
      copied_ = nullptr;
      if (mprotect(lent_ + stretch.begin(), stretch.end() - stretch.begin(), PROT_READ | PROT_WRITE) != 0) {
        std::abort();
      }
      stretch.released = false;
    }
    Unlock();
    return true;
  }

  // Calls visit(offset in the `.ms` file, source, bytes) for what makes up the whole pages of the stretch, as Piece.content
  // does it: the bytes as they are, or filters (channels, pixels) turned to (pixels, channels). Until one returns false.
  template <typename Visit>
  static bool Each(const Stretch &stretch, const Visit &visit) {
    const char *source = stretch.source->data + stretch.offset;
    const size_t begin = stretch.begin(), end = stretch.end();
    if (stretch.pixels == 1) {
      return visit(begin, source + (begin - stretch.position), end - begin);
    }
    size_t at = stretch.position;
    for (const char *end_of_source = source + stretch.length; source < end_of_source;
         source += 4 * stretch.channels * stretch.pixels) {
      for (size_t pixel = 0; pixel < stretch.pixels; ++pixel) {
        for (size_t channel = 0; channel < stretch.channels; ++channel, at += 4) {
          if (at >= begin && at < end && !visit(at, source + 4 * (channel * stretch.pixels + pixel), 4)) {
            return false;
          }
        }
      }
    }
    return true;
  }

  bool Same(const Stretch &stretch) const {
    return Each(stretch, [this](size_t at, const char *source, size_t size) {
      return std::memcmp(back_ + at, source, size) == 0;
    });
  }

  void Copy(const Stretch &stretch) const {
    Each(stretch, [this](size_t at, const char *source, size_t size) {
      std::memcpy(back_ + at, source, size);
      return true;
    });
  }

  // In a signal handler: nothing but system calls.
  [[noreturn]] void End(const Source &source) const {
    for (const char *text : {"error ", source.path.c_str(),
                             " was changed on disk while a graph made from it was loaded: export the bundle again\n"}) {
      if (write(replies_, text, std::strlen(text)) < 0) {
        break;
      }
    }
    _exit(1);
  }

  void Lock() {
    while (busy_.test_and_set(std::memory_order_acquire)) {
    }
  }
  void Unlock() { busy_.clear(std::memory_order_release); }

  int file_;
  size_t size_;
  int replies_;
  std::map<std::string, Source> sources_;
  std::vector<Stretch> stretches_;
  char *lent_ = nullptr;  // what Lite has
  char *back_ = nullptr;  // the same memory, always there and writable
  const Source *copied_ = nullptr;  // what is being read: a fault there means that it was cut
  std::atomic_flag lending_ = ATOMIC_FLAG_INIT;  // set once it has been lent, or may no longer be
  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
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
