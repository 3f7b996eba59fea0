// Ways to cheat a timer from native code. `slow` repeats the honest work, as a kernel that has much to do
// would.
#include <time.h>

#include <cstring>
#include <thread>
#include <vector>

#include "_host/abi.h"
#include "_host/call.hpp"

namespace {

enum Cheat : int64_t {
  kHonest,
  kFirstCalls,  // works in the first 40 calls only
  kPointers,    // keeps an answer under the addresses of its operands
  kBurst,       // works only if some time has passed since the last call
  kBeyond,      // leaves a note after its output
  kInputs,      // changes an input once the first check is over
  kMemo,        // keeps an answer under all its inputs
  kUnpoisoned,  // works only if its output is not what it left there
  kEveryOther,  // works in every 16th call
  kJoined,      // honest: a thread that has written when the call returns
  kScratch,     // honest: keeps scratch memory between calls, never an answer
};

struct Operands {
  const float* x;
  const float* scale;
  float* y;
  int64_t rows, columns, slow;
};

void work(const Operands& o) {
  for (int64_t again = 0; again < o.slow; ++again) {
    for (int64_t r = 0; r < o.rows; ++r) {
      for (int64_t c = 0; c < o.columns; ++c) o.y[r * o.columns + c] = o.scale[r] * o.x[r * o.columns + c];
    }
    asm volatile("" : : "r"(o.y) : "memory");
  }
}

int64_t now_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t{1'000'000'000} * t.tv_sec + t.tv_nsec;
}

size_t bytes(const Operands& o) { return static_cast<size_t>(o.rows * o.columns) * sizeof(float); }

// What the cheats remember; one kernel runs at a time.
struct Memory {
  int64_t calls = 0, last_ns = 0;
  const void* key = nullptr;
  std::vector<float> x, scale, answer, scratch;

  void keep(const Operands& o) {
    x.assign(o.x, o.x + o.rows * o.columns);
    scale.assign(o.scale, o.scale + o.rows);
    answer.assign(o.y, o.y + o.rows * o.columns);
  }
  bool has(const Operands& o) const {
    return answer.size() == static_cast<size_t>(o.rows * o.columns) &&
           std::memcmp(x.data(), o.x, bytes(o)) == 0 &&
           std::memcmp(scale.data(), o.scale, static_cast<size_t>(o.rows) * sizeof(float)) == 0;
  }
  void give(const Operands& o) const { std::memcpy(o.y, answer.data(), bytes(o)); }
  bool left(const Operands& o) const {
    return answer.size() == static_cast<size_t>(o.rows * o.columns) &&
           std::memcmp(answer.data(), o.y, bytes(o)) == 0;
  }
};

Memory memory;

void cheat(int64_t way, const Operands& o) {
  ++memory.calls;
  switch (way) {
    case kFirstCalls:
      if (memory.calls <= 40) work(o);
      return;
    case kPointers:
      if (memory.key != o.y || memory.answer.empty()) {
        work(o);
        memory.keep(o);
        memory.key = o.y;
      }
      memory.give(o);
      return;
    case kBurst:
      if (now_ns() - memory.last_ns > 2'000) work(o);
      memory.last_ns = now_ns();
      return;
    case kBeyond:
      work(o);
      std::memcpy(o.y + o.rows * o.columns + 3, &memory.calls, sizeof memory.calls);
      return;
    case kInputs:
      work(o);
      if (memory.calls > 5) std::memset(const_cast<float*>(o.x), 0, sizeof(float));
      return;
    case kMemo:
      if (!memory.has(o)) {
        work(o);
        memory.keep(o);
      }
      memory.give(o);
      return;
    case kUnpoisoned:
      if (!memory.left(o)) work(o);
      memory.keep(o);
      return;
    case kEveryOther:
      if (memory.calls % 16 == 1) work(o);
      return;
    case kJoined:
      std::thread([o] { work(o); }).join();
      return;
    case kScratch:
      memory.scratch.assign(o.x, o.x + o.rows * o.columns);
      work({memory.scratch.data(), o.scale, o.y, o.rows, o.columns, o.slow});
      return;
    default:
      work(o);
  }
}

}  // namespace

extern "C" int tw_host_cheat_scale(const tw_call* raw) {
  const tw::Call call(*raw);
  const tw_tensor* x = call.require("x", 2);
  const tw_tensor* scale = call.require("scale", 1);
  const tw_tensor* y = call.require("y", 2);
  if (x == nullptr || scale == nullptr || y == nullptr) return TW_REFUSED;
  const Operands o{static_cast<const float*>(x->data),
                   static_cast<const float*>(scale->data),
                   static_cast<float*>(y->data),
                   x->shape[0],
                   x->shape[1],
                   call.attr("slow", 1)};
  static int64_t last = -1;
  const int64_t way = call.attr("cheat", 0);
  if (way != last) memory = Memory{};
  last = way;
  cheat(way, o);
  return TW_OK;
}
