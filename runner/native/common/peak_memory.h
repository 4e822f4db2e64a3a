// The most memory that this process and those that it started have used, watched from a thread.

#ifndef KANDINSKY_MINDIR_PEAK_MEMORY_H
#define KANDINSKY_MINDIR_PEAK_MEMORY_H

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "common/machine.h"

namespace kandinsky {

class PeakMemory {
 public:
  PeakMemory() : watcher_([this] { Watch(); }) {}
  ~PeakMemory() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      done_ = true;
    }
    ended_.notify_all();
    watcher_.join();
  }

  int64_t Peak() { return peak_ = std::max(peak_.load(), MemoryInUse()); }

 private:
  void Watch() {
    std::unique_lock<std::mutex> lock(mutex_);
    do {
      peak_ = std::max(peak_.load(), MemoryInUse());
    } while (!ended_.wait_for(lock, std::chrono::milliseconds(50), [this] { return done_; }));
  }

  std::mutex mutex_;
  std::condition_variable ended_;
  bool done_ = false;
  std::atomic<int64_t> peak_{0};
  std::thread watcher_;
};

}  // namespace kandinsky

#endif
