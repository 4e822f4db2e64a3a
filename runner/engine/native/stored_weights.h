// Weights of a `.ms` model that lie on disk in narrower types: float32 while somebody reads them, and no longer.
//
// The places of large weights in the model are pages that cannot be read. When Lite reads there, the system stops it and asks
// us (SIGSEGV); we lay the float32 values under the place, a block at a time, and Lite goes on. Once a kernel has its packed
// copy of a weight, the pages go, so that a load has one wide weight at a time in memory beside what is packed. Whoever reads
// a weight later gets it again: no order of reading is taken for granted.

#ifndef KANDINSKY_MINDIR_STORED_WEIGHTS_H
#define KANDINSKY_MINDIR_STORED_WEIGHTS_H

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <istream>
#include <stdexcept>
#include <string>
#include <vector>

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "weight_files.h"
#include "widening.h"

class StoredWeights {
 public:
  // replies: see WeightFiles.
  explicit StoredWeights(int replies) : replies_(replies) {
    current_ = this;
    struct sigaction action{};
    action.sa_sigaction = OnFault;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, nullptr);
  }
  ~StoredWeights() { current_ = nullptr; }
  StoredWeights(const StoredWeights &) = delete;
  StoredWeights &operator=(const StoredWeights &) = delete;

  // The rest of a line of the table, from FIRST on (runner/bundle/ms_layout.py: _row): what `length` bytes at `place`, whole
  // pages, are made of.
  void Add(char *place, size_t length, std::istream &line, WeightFiles *files) {
    Weight weight;
    std::string type, path;
    size_t offset, scales, factors;
    line >> weight.first >> type >> offset >> weight.tensor.row >> weight.tensor.plane >> scales >> factors;
    weight.tensor.factors.resize(line ? factors : 0);
    for (double &factor : weight.tensor.factors) {
      line >> factor;
    }
    if (!line || !std::getline(line >> std::ws, path) || weight.tensor.row == 0 || weight.tensor.plane == 0) {
      throw std::runtime_error("the table of what it maps cannot be read");
    }
    const File &file = Open(files->Open(path));
    weight.place = place, weight.length = length;
    weight.tensor.type = StoredTensor::TypeOf(type);
    weight.tensor.values = file.data + offset;
    weight.tensor.scales = file.data + scales;
    const size_t count = length / sizeof(float), planes = weight.tensor.factors.size() / kTaps;
    const bool fits = offset + weight.tensor.EndOfValues(weight.first, count) <= file.size &&
                      (scales == 0 || scales + weight.tensor.EndOfScales(weight.first, count) <= file.size) &&
                      (planes == 0 || weight.first + count <= planes * weight.tensor.plane);
    if (!fits) {
      throw std::runtime_error(path + " ends before what the model takes from it");
    }
    Hide(&weight);
    weights_.insert(std::upper_bound(weights_.begin(), weights_.end(), weight, Before), weight);
  }

  // A kernel is about to pack the weight at `tensor`: what it packed before is packed.
  static void Packing(const void *tensor) {
    if (current_ != nullptr) {
      current_->ChangePacked(static_cast<const char *>(tensor));
    }
  }

  // To be called once Lite has built the model.
  void EndBuilding() { ChangePacked(nullptr); }

 private:
  static constexpr size_t kBlock = size_t{1} << 20;  // bytes laid down at a time: a token's row takes no more

  struct Weight {
    char *place = nullptr;
    size_t length = 0, first = 0;
    StoredTensor tensor;
    std::vector<bool> there;  // of each block, whether it can be read
  };
  struct File {
    int descriptor;
    const uint8_t *data;
    size_t size;
  };

  static bool Before(const Weight &one, const Weight &other) { return one.place < other.place; }

  const File &Open(int descriptor) {
    for (const File &file : files_) {
      if (file.descriptor == descriptor) {
        return file;
      }
    }
    struct stat status{};
    fstat(descriptor, &status);
    const auto size = static_cast<size_t>(status.st_size);
    void *data = mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
    if (data == MAP_FAILED) {
      throw std::runtime_error("its weights cannot be mapped");
    }
    files_.push_back({descriptor, static_cast<const uint8_t *>(data), size});
    return files_.back();
  }

  static void Hide(Weight *weight) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    if (mmap(weight->place, weight->length, PROT_NONE, flags, -1, 0) == MAP_FAILED) {
      throw std::runtime_error("its weights cannot be mapped");
    }
    weight->there.assign((weight->length + kBlock - 1) / kBlock, false);
  }

  Weight *Find(const char *address) {
    const auto after = std::upper_bound(weights_.begin(), weights_.end(), address,
                                        [](const char *place, const Weight &weight) { return place < weight.place; });
    Weight *found = after == weights_.begin() ? nullptr : &*(after - 1);
    return found == nullptr || address >= found->place + found->length ? nullptr : found;
  }

  void ChangePacked(const char *tensor) {
    Weight *next = tensor == nullptr ? nullptr : Find(tensor);
    if (packing_ != nullptr && packing_ != next) {
      Lock();
      Hide(packing_);
      Unlock();
    }
    packing_ = next;
  }

  // Lays the block under an address that was read. Whether there is one. It appears at once: other threads read it, too.
  bool Provide(const char *address) {
    Weight *weight = Find(address);
    if (weight == nullptr) {
      return false;
    }
    Lock();
    const size_t block = static_cast<size_t>(address - weight->place) / kBlock, start = block * kBlock;
    if (!weight->there[block]) {
      const size_t length = std::min(kBlock, weight->length - start);
      void *made = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
      if (made == MAP_FAILED) {
        Die("error there is no memory for its weights\n");
      }
      weight->tensor.Widen(weight->first + start / sizeof(float), length / sizeof(float), static_cast<float *>(made));
      if (mremap(made, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, weight->place + start) == MAP_FAILED) {
        Die("error its weights cannot be mapped\n");
      }
      weight->there[block] = true;
    }
    Unlock();
    return true;
  }

  [[noreturn]] void Die(const std::string &words) const {
    [[maybe_unused]] const auto written = write(replies_, words.data(), words.size());
    _exit(1);
  }

  // Only reads of weights are stopped here, never within the system's own functions for memory: what the handler calls is safe.
  static void OnFault(int, siginfo_t *info, void *) {
    if (current_ == nullptr || !current_->Provide(static_cast<const char *>(info->si_addr))) {
      std::signal(SIGSEGV, SIG_DFL);  // a fault like any other: it comes again, and ends the process
    }
  }

  void Lock() {
    while (lock_.test_and_set(std::memory_order_acquire)) {
    }
  }
  void Unlock() { lock_.clear(std::memory_order_release); }

  int replies_;
  std::vector<Weight> weights_;  // by their places
  std::vector<File> files_;
  Weight *packing_ = nullptr;
  std::atomic_flag lock_ = ATOMIC_FLAG_INIT;
  static inline StoredWeights *current_ = nullptr;
};

#endif
