// Memory of a `.ms` model in which its weights take none.
//
// Lite 2.0 copies a `.ms` file into memory of its own (PackWeight, one posix_memalign as large as the file) and keeps the
// copy as long as the model, although matrix products and convolutions then make packed copies of their weights and never
// read the file's again. LeanWeights lays under that memory the file itself, and in it the weight files that it was made
// of: their pages belong to the system's cache of files, where no copy is made of them and from where the system takes
// them when it needs memory.

#ifndef KANDINSKY_MINDIR_LEAN_WEIGHTS_H
#define KANDINSKY_MINDIR_LEAN_WEIGHTS_H

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include <unistd.h>

#include "weight_files.h"

class LeanWeights {
 public:
  // file: descriptor of the `.ms` file, in memory. room: bytes of zeros that are wanted behind it.
  LeanWeights(int file, size_t size, size_t room) : file_size_(size), size_(std::max(size + room, kPooled + kPage)) {
    lent_ = static_cast<char *>(aligned_alloc(kPage, (size_ + 2 * kPage - 1) / kPage * kPage));  // Lite may free it
    if (lent_ == nullptr || ftruncate(file, static_cast<off_t>(size_)) != 0) {
      throw std::runtime_error("there is no room for the file");
    }
    MapPrivate(lent_, size_, file, 0);
    current_ = this;
  }
  ~LeanWeights() { current_ = nullptr; }
  LeanWeights(const LeanWeights &) = delete;
  LeanWeights &operator=(const LeanWeights &) = delete;

  // Lays `length` bytes of a weight file, whole pages, at `position` of the `.ms` file.
  void Map(size_t position, size_t length, int file, size_t offset) {
    MapPrivate(Place(position, length), length, file, offset);
  }

  // The memory of `length` bytes at `position` of the `.ms` file.
  char *Place(size_t position, size_t length) const {
    if (position > file_size_ || length > file_size_ - position) {
      throw std::runtime_error("a weight lies beyond its end");
    }
    return lent_ + position;
  }

  // The file, to build the model from: where Lite will copy it to, so that nothing is left to copy.
  char *data() const { return lent_; }
  size_t size() const { return size_; }
  size_t file_size() const { return file_size_; }

  // The memory that Lite asks for to copy the file into; nullptr if it is for something else.
  void *Memory(size_t size) {
    return size < size_ || size >= size_ + kPage || lent_once_.test_and_set() ? nullptr : lent_;
  }

  // To be called once the model is built: lends nothing from then on.
  void EndLending() { lent_once_.test_and_set(); }

  static LeanWeights *current() { return current_; }

 private:
  static constexpr size_t kPooled = size_t{1} << 28;  // up to here Lite takes a share of a block of so much: the file must
                                                      // be larger, if only by a hole at its end
  size_t file_size_, size_;
  char *lent_ = nullptr;
  std::atomic_flag lent_once_ = ATOMIC_FLAG_INIT;  // set once it has been lent, or may no longer be
  static inline LeanWeights *current_ = nullptr;
};

// In place of the C library's, for Lite's libraries too. Lite copies the file to where it lies already: to write the same
// bytes again would make a private copy of each page. The C library's memcpy does so on some processors (aarch64).
extern "C" __attribute__((visibility("default"))) void *CopyUnlessThere(void *to, const void *from, size_t size) __asm__("memcpy");
extern "C" void *CopyUnlessThere(void *to, const void *from, size_t size) {
  return to == from ? to : std::memmove(to, from, size);
}

// In place of the C library's, too.
extern "C" int posix_memalign(void **memory, size_t alignment, size_t size) noexcept {
  LeanWeights *lean = LeanWeights::current();
  *memory = lean == nullptr ? nullptr : lean->Memory(size);
  if (*memory == nullptr) {
    *memory = aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  }
  return *memory == nullptr ? ENOMEM : 0;
}

#endif
