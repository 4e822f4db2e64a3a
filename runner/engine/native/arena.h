// One region of memory for the values between a graph's operators.
//
// Lite's own allocator never splits a block: a value takes the smallest free one that is large enough, and holds all of it
// however large that is. Here a value takes the first gap that it fits into, and gaps that meet become one. The MoVQ
// decoder's values at 768x768, of many shapes, take 1.2 GB with this and 2.0 GB with Lite's.

#ifndef KANDINSKY_MINDIR_ARENA_H
#define KANDINSKY_MINDIR_ARENA_H

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>

#include <sys/mman.h>
#include <unistd.h>

#include "include/api/allocator.h"

class Arena : public mindspore::Allocator {
 public:
  // As many addresses as the machine has memory; a page of it, a large one if the system has those, comes with its first
  // use, and stays. nullptr, with which Lite takes its own allocator, where there is a limit on addresses.
  static std::shared_ptr<Arena> Make() {
    const size_t size = static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
    void *region = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (region == MAP_FAILED) {
      return nullptr;
    }
    madvise(region, size, MADV_HUGEPAGE);
    return std::make_shared<Arena>(static_cast<char *>(region), size);
  }

  Arena(char *region, size_t size) : region_(region), size_(size) { gaps_[region] = size - kBeyond; }
  ~Arena() override { munmap(region_, size_); }
  Arena(const Arena &) = delete;
  Arena &operator=(const Arena &) = delete;

  void *Malloc(size_t size) override {
    size = std::max((size + kAlignment - 1) / kAlignment * kAlignment, kAlignment);
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto gap = std::find_if(gaps_.begin(), gaps_.end(), [size](const auto &each) { return each.second >= size; });
    if (gap == gaps_.end()) {
      return nullptr;
    }
    const auto [begin, length] = *gap;
    gaps_.erase(gap);
    if (length > size) {
      gaps_[begin + size] = length - size;
    }
    blocks_[begin] = {size, 0};
    return begin;
  }

  void Free(void *memory) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto block = blocks_.find(memory);
    if (block == blocks_.end()) {
      return;
    }
    auto gap = gaps_.emplace(static_cast<char *>(memory), block->second.size).first;
    blocks_.erase(block);
    if (const auto next = std::next(gap); next != gaps_.end() && gap->first + gap->second == next->first) {
      gap->second += next->second;
      gaps_.erase(next);
    }
    if (gap != gaps_.begin()) {
      if (const auto previous = std::prev(gap); previous->first + previous->second == gap->first) {
        previous->second += gap->second;
        gaps_.erase(gap);
      }
    }
  }

  // How many tensors share a block: Lite counts them here. -1 for what is none.
  int RefCount(void *memory) override { return Count(memory, [](int count) { return count; }); }
  int SetRefCount(void *memory, int count) override { return Count(memory, [count](int) { return count; }); }
  int IncRefCount(void *memory, int count) override { return Count(memory, [count](int old) { return old + count; }); }
  int DecRefCount(void *memory, int count) override { return Count(memory, [count](int old) { return old - count; }); }

 private:
  static constexpr size_t kAlignment = 64;  // a cache line, and the widest vector register
  static constexpr size_t kBeyond = 4096;  // a kernel may read a vector past the end of the last block

  struct Block {
    size_t size;
    int count;
  };

  template <typename Change>
  int Count(void *memory, const Change &change) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto block = blocks_.find(memory);
    return block == blocks_.end() ? -1 : block->second.count = change(block->second.count);
  }

  std::mutex mutex_;
  char *region_;
  size_t size_;
  std::map<char *, size_t> gaps_;  // by address: the first that is large enough leaves the fewest behind
  std::unordered_map<void *, Block> blocks_;
};

#endif
