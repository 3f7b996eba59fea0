#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

#include "guard.h"

namespace tilewright::twin {

namespace {

constexpr size_t kStack = size_t{8} << 20;

size_t Page() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

}  // namespace

Fiber::Fiber(std::function<void()> body) : body_(std::move(body)) {
  stack_ = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stack_ == MAP_FAILED) throw std::bad_alloc();
  mprotect(stack_, Page(), PROT_NONE);  // overflow faults instead of writing over a neighbour
  getcontext(&here_);
  here_.uc_stack.ss_sp = stack_;
  here_.uc_stack.ss_size = kStack;
  here_.uc_link = &owner_;
  const auto self = reinterpret_cast<uintptr_t>(this);
  makecontext(&here_, reinterpret_cast<void (*)()>(&Fiber::Enter), 2, static_cast<unsigned>(self),
              static_cast<unsigned>(self >> 32));
}

Fiber::~Fiber() { munmap(stack_, kStack); }

void Fiber::Enter(unsigned low, unsigned high) {
  auto* self = reinterpret_cast<Fiber*>(uintptr_t{low} | uintptr_t{high} << 32);
  self->body_();
  self->done_ = true;
}

void Fiber::Resume() {
  void* outer = SwapEscape(escape_);
  swapcontext(&owner_, &here_);
  escape_ = SwapEscape(outer);
}

void Fiber::Yield() { swapcontext(&here_, &owner_); }

}  // namespace tilewright::twin
