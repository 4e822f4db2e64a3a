// The threads that share out each operator, in place of Lite's own.
//
// Lite cuts an operator into as many fixed shares as there are threads, and its threads spin until the last is done: where
// another program takes one of the cores away for a while, all of them wait for that core. Here an operator is cut into
// more shares than there are threads, which take them as they come, and threads without work sleep. The shares of an
// operator do not overlap: which thread computes one changes no bit of the result.

#ifndef KANDINSKY_MINDIR_THREAD_POOL_H
#define KANDINSKY_MINDIR_THREAD_POOL_H

#include <algorithm>
#include <atomic>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

class SharePool {
 public:
  using Task = std::function<int(void *, int, float, float)>;  // content, number of the share, where it begins and ends

  static constexpr int kSharesPerThread = 2;  // more cost time where nothing else runs, and gain little where something does

  // How many shares of an operator suit so many threads.
  static int Shares(int threads) { return threads <= 1 ? 1 : threads * kSharesPerThread; }

  // To be called once, before the first Run. Its threads live as long as the process.
  static void Start(int threads) { instance().Grow(threads - 1); }

  static SharePool &instance() {
    static auto *pool = new SharePool;  // never destroyed: its threads use it to the last
    return *pool;
  }

  // Runs all shares of `task`; 0, or what one of them returned instead. The calling thread works, too.
  int Run(const Task &task, void *content, int shares) {
    const std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
    if (helpers_.empty() || shares <= 1 || !turn.owns_lock()) {  // an operator inside another one has the caller's thread
      int status = 0;
      for (int i = 0; i < shares; ++i) {
        const int result = RunShare(task, content, i, shares);
        status = result != 0 ? result : status;
      }
      return status;
    }
    task_.store(&task, std::memory_order_relaxed);
    content_.store(content, std::memory_order_relaxed);
    status_.store(0, std::memory_order_relaxed);
    left_.store(shares, std::memory_order_relaxed);
    next_.store(static_cast<uint64_t>(shares) << 32, std::memory_order_release);
    jobs_.fetch_add(1);
    if (asleep_.load() > 0) {
      Wake(&jobs_);
    }
    Work();
    Await(&left_, [](uint32_t left) { return left == 0; }, &waits_);
    return status_.load(std::memory_order_relaxed);
  }

 private:
  static constexpr int kSpins = 4000;  // some 50 microseconds: operators follow each other more closely than that

  // An exception is a failure of the share: out of a thread it would end the process.
  static int RunShare(const Task &task, void *content, int share, int shares) {
    try {
      return task(content, share, static_cast<float>(share) / shares, static_cast<float>(share + 1) / shares);
    } catch (const std::exception &error) {
      std::fprintf(stderr, "[ERROR] %s\n", error.what());
      return 1;
    }
  }

  void Grow(int helpers) {
    for (int i = static_cast<int>(helpers_.size()); i < helpers; ++i) {
      helpers_.emplace_back([this] { Help(); }).detach();
    }
  }

  void Help() {
    for (uint32_t seen = 0;;) {
      seen = Await(&jobs_, [seen](uint32_t jobs) { return jobs != seen; }, &asleep_);
      Work();
    }
  }

  // Takes shares of the job at hand until there are none.
  void Work() {
    for (uint64_t next = next_.load(std::memory_order_acquire);;) {
      const int shares = static_cast<int>(next >> 32), share = static_cast<int>(next & UINT32_MAX);
      if (share >= shares) {
        return;
      }
      if (!next_.compare_exchange_weak(next, next + 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
        continue;
      }
      // The job at hand cannot end before this share has: only now is what is read here surely of the same job.
      const Task *task = task_.load(std::memory_order_relaxed);
      if (const int result = RunShare(*task, content_.load(std::memory_order_relaxed), share, shares); result != 0) {
        status_.store(result, std::memory_order_relaxed);
      }
      if (left_.fetch_sub(1) == 1 && waits_.load() > 0) {
        Wake(&left_);
      }
      next = next_.load(std::memory_order_acquire);
    }
  }

  // Waits until `done` of the value; the value. Spins for a while, then sleeps, counted in `sleepers`.
  template <typename Done>
  static uint32_t Await(std::atomic<uint32_t> *value, Done done, std::atomic<int> *sleepers) {
    for (int i = 0; i < kSpins; ++i) {
      if (const uint32_t now = value->load(std::memory_order_acquire); done(now)) {
        return now;
      }
      Pause();
    }
    sleepers->fetch_add(1);
    uint32_t now = value->load();
    while (!done(now)) {
      syscall(SYS_futex, value, FUTEX_WAIT_PRIVATE, now, nullptr, nullptr, 0);
      now = value->load();
    }
    sleepers->fetch_sub(1);
    return now;
  }

  static void Wake(std::atomic<uint32_t> *value) { syscall(SYS_futex, value, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0); }

  static void Pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  std::mutex turn_;  // one job at a time
  std::vector<std::thread> helpers_;
  // The job at hand: how many shares it has and the number of the next one, together.
  std::atomic<uint64_t> next_{0};
  std::atomic<const Task *> task_{nullptr};
  std::atomic<void *> content_{nullptr};
  std::atomic<int> status_{0};
  std::atomic<uint32_t> left_{0}, jobs_{0};   // shares that are not done; jobs that have begun
  std::atomic<int> asleep_{0}, waits_{0};
};

static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t), "a futex is a plain word");

// In place of Lite's, whose libraries look for it here first.
namespace mindspore {
class __attribute__((visibility("default"))) ThreadPool {
 public:
  int ParallelLaunch(const SharePool::Task &task, void *content, int shares);
};

int ThreadPool::ParallelLaunch(const SharePool::Task &task, void *content, int shares) {
  return SharePool::instance().Run(task, content, shares);
}

class __attribute__((visibility("default"))) CoreAffinity {
 public:
  static float GetServerFrequency();
};

// The most MHz of a core, or -1. Lite asks a shell and three programs for it, of which a board may have none, at each model.
float CoreAffinity::GetServerFrequency() {
  float most = -1.0F, found = 0.0F;
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (std::sscanf(line.c_str(), "cpu MHz : %f", &found) == 1) {
      most = std::max(most, found);
    }
  }
  return most;
}
}  // namespace mindspore

#endif
