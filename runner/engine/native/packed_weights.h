// Weights in the order in which Lite's kernels read them, kept in files.
//
// While Lite 2.0 builds a model, each matrix product and convolution asks PackWeightManager for memory, writes its weight
// there in another order and reads it from there in every run. Lite can also say that the memory holds the packed weight
// already, for models that share one copy. Here that memory is a file's: `Keep` collects the packed weights of a model in
// one, `Add` says where a packed weight lies, and then nothing is packed, copied or even read before it is used.

#ifndef KANDINSKY_MINDIR_PACKED_WEIGHTS_H
#define KANDINSKY_MINDIR_PACKED_WEIGHTS_H

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>

#include "stored_weights.h"
#include "weight_files.h"

class PackedWeights {
 public:
  // A packed weight: of the tensor at `position` of the `.ms` file; `length` bytes, `offset` in its file.
  struct Weight {
    size_t position, length, offset;
  };

  // model: the `.ms` file of `size` bytes, as Lite reads it.
  PackedWeights(const char *model, size_t size) : model_(model), size_(size) { current_ = this; }
  ~PackedWeights() { current_ = nullptr; }
  PackedWeights(const PackedWeights &) = delete;
  PackedWeights &operator=(const PackedWeights &) = delete;

  void Add(const Weight &weight, int file) {
    char *memory = MapPrivate(nullptr, weight.length, file, weight.offset);
    known_[{weight.position, weight.length}].push_back(memory);
    mapped_.insert(memory);
    expected_ = true;
  }

  // Has the packed weights of a page or more written to an empty file.
  void Keep(int file) { file_ = file; }
  const std::vector<Weight> &kept() const { return kept_; }

  // Memory for the packed form of `tensor`; *packed: whether it is there. nullptr: nothing is known of it.
  void *Memory(const void *tensor, size_t size, bool *packed) {
    const std::lock_guard<std::mutex> lock(mutex_);
    StoredWeights::Packing(tensor);
    const char *data = static_cast<const char *>(tensor);
    *packed = false;
    if (built_ || size < kPage || data < model_ || data >= model_ + size_) {
      return nullptr;
    }
    const Weight weight{static_cast<size_t>(data - model_), size, end_};
    if (file_ >= 0) {
      return error_ == 0 ? Write(weight) : nullptr;
    }
    const auto found = known_.find({weight.position, size});
    if (found == known_.end() || found->second.empty()) {
      unknown_ = expected_;
      return nullptr;
    }
    char *memory = found->second.front();  // kernels that share a weight ask in the same order each time
    found->second.pop_front();
    *packed = true;
    return memory;
  }

  // Whether the memory is a file's, and not to be freed.
  bool Owns(const void *memory) const { return mapped_.count(memory) != 0; }

  // To be called once the model is built. Throws unless it asked for just the weights that were added, or all were kept.
  void EndBuilding() {
    built_ = true;
    if (error_ != 0) {
      throw std::runtime_error(std::string("its packed weights cannot be written to the disk: ") + std::strerror(error_));
    }
    for (const auto &[key, left] : known_) {
      unknown_ = unknown_ || !left.empty();
    }
    if (unknown_) {
      throw std::runtime_error("its weights were packed for another processor: pack the bundle again");
    }
  }

  static PackedWeights *current() { return current_; }

 private:
  void *Write(const Weight &weight) {
    const size_t end = weight.offset + (weight.length + kPage - 1) / kPage * kPage;
    const auto offset = static_cast<off_t>(weight.offset);
    error_ = posix_fallocate(file_, offset, static_cast<off_t>(end - weight.offset));  // a full disk is to show here
    if (error_ != 0) {
      return nullptr;
    }
    void *memory = mmap(nullptr, weight.length, PROT_READ | PROT_WRITE, MAP_SHARED, file_, offset);
    if (memory == MAP_FAILED) {
      error_ = errno;
      return nullptr;
    }
    end_ = end;
    kept_.push_back(weight);
    mapped_.insert(memory);
    return memory;
  }

  const char *model_;
  size_t size_;
  int file_ = -1;
  size_t end_ = 0;
  bool expected_ = false, unknown_ = false, built_ = false;
  int error_ = 0;  // why a weight could not be kept
  std::map<std::pair<size_t, size_t>, std::deque<char *>> known_;  // by position and length
  std::set<const void *> mapped_;
  std::vector<Weight> kept_;
  std::mutex mutex_;
  static inline PackedWeights *current_ = nullptr;
};

// Memory for the packed weight of a kernel of ours: a file's, or its own.
class PackedWeight {
 public:
  PackedWeight() = default;
  ~PackedWeight() { std::free(owned_); }
  PackedWeight(const PackedWeight &) = delete;
  PackedWeight &operator=(const PackedWeight &) = delete;

  // Takes `size` bytes for the packed form of `tensor`. Whether it is there already, and need not be written.
  bool Take(const void *tensor, size_t size) {
    bool there = false;
    PackedWeights *weights = PackedWeights::current();
    void *memory = weights == nullptr ? nullptr : weights->Memory(tensor, size, &there);
    if (memory == nullptr) {
      there = false;
      memory = owned_ = aligned_alloc(kAlignment, (size + kAlignment - 1) / kAlignment * kAlignment);
      if (memory == nullptr) {
        throw std::bad_alloc();
      }
    }
    data_ = static_cast<char *>(memory);
    return there;
  }
  char *data() const { return data_; }  // nullptr where none was taken

 private:
  static constexpr size_t kAlignment = 64;  // a cache line, and the widest vector register
  char *data_ = nullptr;
  void *owned_ = nullptr;
};

// In place of Lite's, whose libraries look for it here first.
namespace mindspore::lite {
class __attribute__((visibility("default"))) PackWeightManager {
 public:
  void *GetPackData(const void *tensor, size_t size, bool *packed);
  void FreeData(void *memory);
  void Free(void *memory);
};

void *PackWeightManager::GetPackData(const void *tensor, size_t size, bool *packed) {
  constexpr size_t kAlignment = 64;  // a cache line, and the widest vector register
  PackedWeights *weights = PackedWeights::current();
  void *memory = weights == nullptr ? nullptr : weights->Memory(tensor, size, packed);
  if (memory == nullptr) {
    *packed = false;
    memory = aligned_alloc(kAlignment, (size + kAlignment - 1) / kAlignment * kAlignment);
  }
  return memory;
}

void PackWeightManager::FreeData(void *memory) {
  if (const PackedWeights *weights = PackedWeights::current(); weights == nullptr || !weights->Owns(memory)) {
    std::free(memory);
  }
}

void PackWeightManager::Free(void *memory) { FreeData(memory); }
}  // namespace mindspore::lite

#endif
