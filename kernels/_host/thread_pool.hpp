// A persistent pool for kernels: the caller works too, wake-up is a short spin and then a futex.
#pragma once

#include <cstdint>

namespace tw {

// Threads used when a call asks for none in particular: tw_set_threads(), else the CPUs this process may use.
int default_threads();

// `requested` <= 0 means default_threads(); never more than kMaxThreads.
int resolve_threads(int requested);

inline constexpr int kMaxThreads = 256;

using TaskFn = void (*)(void* context, int index, int count);

// Runs task(context, i, count) for every i in [0, count), index 0 on the calling thread. Returns when all are
// done. A nested or concurrent call runs its tasks one after another on the caller, so a task must never wait
// for another. Tasks must not throw.
void run_tasks(int count, TaskFn task, void* context);

template <class Body>
void run_tasks(int count, Body& body) {
  run_tasks(count, [](void* context, int index, int n) { (*static_cast<Body*>(context))(index, n); }, &body);
}

struct Range {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

// Part `index` of [0, total) cut into `parts` ranges whose sizes differ by at most one.
constexpr Range split(int64_t total, int64_t parts, int64_t index) {
  const int64_t base = total / parts, extra = total % parts;
  const int64_t begin = index * base + (index < extra ? index : extra);
  return {begin, begin + base + (index < extra ? 1 : 0)};
}

// body(begin, end, index) over static ranges of [0, total).
template <class Body>
void parallel_for(int64_t total, int threads, Body&& body) {
  if (total <= 0) return;
  const int count = static_cast<int>(total < threads ? total : threads);
  auto task = [&](int index, int n) {
    const Range range = split(total, n, index);
    body(range.begin, range.end, index);
  };
  run_tasks(count, task);
}

}  // namespace tw

extern "C" {
// Sets default_threads(); n <= 0 goes back to the CPUs this process may use.
void tw_set_threads(int n);
int tw_get_threads(void);
}
