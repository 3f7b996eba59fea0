// A kernel's call on a stack of its own, which can be left in the middle and resumed.
#pragma once

#include <ucontext.h>

#include <cstddef>
#include <functional>

namespace tilewright::twin {

class Fiber {
 public:
  explicit Fiber(std::function<void()> body);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // From the host thread that owns it: runs until the body yields or ends.
  void Resume();
  // From within the body.
  void Yield();
  bool done() const { return done_; }

 private:
  static void Enter(unsigned low, unsigned high);

  std::function<void()> body_;
  void* stack_;
  ucontext_t here_{}, owner_{};
  void* escape_ = nullptr;  // the fault guard's way out, which is the fiber's own
  bool done_ = false;
};

}  // namespace tilewright::twin
