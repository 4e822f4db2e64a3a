// A request to stop, which any thread or signal handler may make, and what is thrown where it is seen.

#ifndef KANDINSKY_MINDIR_STOP_H
#define KANDINSKY_MINDIR_STOP_H

#include <atomic>
#include <exception>

namespace kandinsky {

class Stopped : public std::exception {
 public:
  const char *what() const noexcept override { return "stopped"; }
};

class Stop {
 public:
  void Ask() { asked_.store(true, std::memory_order_relaxed); }
  void Forget() { asked_.store(false, std::memory_order_relaxed); }
  bool asked() const { return asked_.load(std::memory_order_relaxed); }
  void Check() const {
    if (asked()) {
      throw Stopped();
    }
  }

 private:
  std::atomic<bool> asked_{false};
};

static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler sets it");

}  // namespace kandinsky

#endif
