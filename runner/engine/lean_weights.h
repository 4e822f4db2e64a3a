// Memory of a `.ms` model in one copy.
//
// Lite 2.0 copies a `.ms` file into memory of its own (PackWeight, one posix_memalign as large as the file) and keeps the
// copy as long as the model, although matrix products and convolutions then make packed copies of their weights and never
// read the file's again. LeanWeights hands out the file itself in place of that memory, and after the load gives the
// pages of the weights back. Whatever is read after all faults, and comes back from the weight files it was made of: the
// bytes are the same, so nothing depends on which weights a kernel packs.

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
  // each stretch of it was made (runner/ms_file.py: Piece).
  LeanWeights(int file, size_t size, const char *table) : file_(file), size_(size) {
    std::ifstream lines(table);
    std::map<std::string, const char *> sources;
    Stretch stretch{};
    size_t offset = 0;
    for (std::string source; lines >> stretch.position >> stretch.length >> stretch.channels >> stretch.pixels >> offset &&
                             std::getline(lines >> std::ws, source);) {
      if (stretch.length < kSmallest) {
        continue;
      }
      auto &data = sources[source];
      if (data == nullptr) {
        data = Map(source);
      }
      stretch.source = data + offset;
      stretches_.push_back(stretch);  // in order of position, as the table is
    }
    current_ = this;
  }

  // The memory that Lite asks for to copy the file into; nullptr if it is for something else.
  void *Memory(size_t size) {
    if (lent_ != nullptr || size < size_ || size >= size_ + kPage) {
      return nullptr;
    }
    void *memory = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
    void *back = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
    if (memory == MAP_FAILED || back == MAP_FAILED) {
      return nullptr;
    }
    lent_ = static_cast<char *>(memory);
    back_ = static_cast<char *>(back);
    return lent_;
  }

  // To be called once the model is built.
  void Release() {
    if (lent_ == nullptr) {
      return;
    }
    struct sigaction action{};
    action.sa_sigaction = Restore;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, nullptr);
    for (auto &stretch : stretches_) {
      const size_t begin = Inner(stretch.position), end = (stretch.position + stretch.length) / kPage * kPage;
      mprotect(lent_ + begin, end - begin, PROT_NONE);
      fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(begin), static_cast<off_t>(end - begin));
    }
  }

  static LeanWeights *current() { return current_; }

 private:
  static constexpr size_t kPage = 4096;
  static constexpr size_t kSmallest = 16 * kPage;  // below, it is not worth two system calls

  struct Stretch {
    size_t position, length, channels, pixels;
    const char *source;
    bool restored;
  };

  static size_t Inner(size_t position) { return (position + kPage - 1) / kPage * kPage; }

  static const char *Map(const std::string &path) {
    const int file = open(path.c_str(), O_RDONLY);
    struct stat status{};
    void *data = file < 0 || fstat(file, &status) != 0
                   ? MAP_FAILED
                   : mmap(nullptr, static_cast<size_t>(status.st_size), PROT_READ, MAP_SHARED, file, 0);
    if (data == MAP_FAILED) {
      throw std::runtime_error(path + " cannot be mapped");
    }
    close(file);
    return static_cast<const char *>(data);
  }

  // SIGSEGV: brings back the stretch that holds the address; any other fault ends the process, as it would have.
  static void Restore(int, siginfo_t *info, void *) {
    LeanWeights &self = *current_;
    const auto place = static_cast<size_t>(static_cast<char *>(info->si_addr) - self.lent_);
    auto next = std::upper_bound(self.stretches_.begin(), self.stretches_.end(), place,
                                 [](size_t value, const Stretch &stretch) { return value < stretch.position; });
    if (next == self.stretches_.begin() || place >= (next - 1)->position + (next - 1)->length) {
      std::signal(SIGSEGV, SIG_DFL);
      return;
    }
    Stretch &stretch = *(next - 1);
    while (self.busy_.test_and_set(std::memory_order_acquire)) {  // several threads may read it at once
    }
    if (!stretch.restored) {
      stretch.restored = true;
      self.Copy(stretch);
      const size_t begin = Inner(stretch.position), end = (stretch.position + stretch.length) / kPage * kPage;
      mprotect(self.lent_ + begin, end - begin, PROT_READ | PROT_WRITE);
    }
    self.busy_.clear(std::memory_order_release);
  }

  // As Piece.copy does it: the bytes as they are, or filters (channels, pixels) turned to (pixels, channels).
  void Copy(const Stretch &stretch) {
    char *target = back_ + stretch.position;
    if (stretch.pixels == 1) {
      std::memcpy(target, stretch.source, stretch.length);
      return;
    }
    const size_t size = stretch.channels * stretch.pixels;
    for (size_t filter = 0; filter < stretch.length / (4 * size); ++filter) {
      for (size_t pixel = 0; pixel < stretch.pixels; ++pixel) {
        for (size_t channel = 0; channel < stretch.channels; ++channel) {
          const size_t to = filter * size + pixel * stretch.channels + channel;
          const size_t from = filter * size + channel * stretch.pixels + pixel;
          std::memcpy(target + 4 * to, stretch.source + 4 * from, 4);
        }
      }
    }
  }

  int file_;
  size_t size_;
  std::vector<Stretch> stretches_;
  char *lent_ = nullptr;  // what Lite has
  char *back_ = nullptr;  // the same memory, always writable
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
