// Measured ceilings of this machine at the level in use: what a kernel's rate is a fraction of.
#include "_host/ceilings.hpp"

#include <time.h>

#include <cstring>

#include "_host/cpu.hpp"
#include "_host/export.hpp"
#include "_host/thread_pool.hpp"
#include "_host/workspace.hpp"

namespace tw::ceilings {

namespace scalar {
const Loops& loops();
}
namespace avx2 {
const Loops& loops();
}
namespace avx2vnni {
const Loops& loops();
}
namespace avx512 {
const Loops& loops();
}
namespace amx {
const Loops& loops();
}

namespace {

constexpr double kWindow = 2e-3;  // seconds; short, so that some windows are free of neighbours
constexpr int kFewestWindows = 3;

const Loops* loops_in_use() {
  Level level;
  if (!current_level(&level)) return nullptr;
  switch (level) {
    case Level::amx:
      return &amx::loops();
    case Level::avx512:
      return &avx512::loops();
    case Level::avx2vnni:
      return &avx2vnni::loops();
    case Level::avx2:
      return &avx2::loops();
    case Level::scalar:
      break;
  }
  return &scalar::loops();
}

double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Best rate over windows of about kWindow for `seconds`: work(repeats) does `repeats` units on every thread.
template <class Work>
double best_rate(double units_per_repeat, double seconds, const Work& work) {
  double repeats = 1.0, best = 0.0;
  int windows = 0;  // one alone may be the one in which a thread lost its processor
  const double end = now() + seconds;
  do {
    const double start = now();
    work(static_cast<int64_t>(repeats));
    const double spent = now() - start;
    const double rate = repeats * units_per_repeat / (spent > 1e-9 ? spent : 1e-9);
    windows += spent >= kWindow / 4;
    if (spent >= kWindow / 4 && rate > best) best = rate;
    if (spent < kWindow) repeats *= spent < kWindow / 8 ? 4.0 : 1.5;
  } while (now() < end || windows < kFewestWindows);
  return best;
}

// Every thread goes over its own `bytes` again and again.
template <class Pass>
double bandwidth(int64_t bytes, int threads, double seconds, const Loops& loops, const Pass& pass) {
  const int count = resolve_threads(threads);
  const int64_t step = loops.bytes_per_step;
  const int64_t each = round_up(bytes > step ? bytes : step, step);
  const int64_t apart = round_up(each, 4096) + 4096;
  Workspace workspace;
  char* data = workspace.get(apart * count);
  if (data == nullptr) return -1.0;
  auto fill = [&](int index, int) { std::memset(data + index * apart, 1, static_cast<size_t>(each)); };
  run_tasks(count, fill);
  const double rate = best_rate(static_cast<double>(each) * count, seconds, [&](int64_t repeats) {
    auto task = [&](int index, int) {
      for (int64_t i = 0; i < repeats; ++i) pass(data + index * apart, each);
    };
    run_tasks(count, task);
  });
  return rate * 1e-9;
}

}  // namespace
}  // namespace tw::ceilings

// Rates are GB/s and GFLOP/s (GOP/s for int8) of all threads together; -1 when they cannot be had.
TW_EXPORT double tw_ceiling_read_gbps(int64_t bytes_per_thread, int threads, double seconds) {
  const tw::ceilings::Loops* loops = tw::ceilings::loops_in_use();
  if (loops == nullptr) return -1.0;
  return tw::ceilings::bandwidth(bytes_per_thread, threads, seconds, *loops, loops->read);
}

TW_EXPORT double tw_ceiling_write_gbps(int64_t bytes_per_thread, int threads, double seconds) {
  const tw::ceilings::Loops* loops = tw::ceilings::loops_in_use();
  if (loops == nullptr) return -1.0;
  return tw::ceilings::bandwidth(bytes_per_thread, threads, seconds, *loops, loops->write);
}

TW_EXPORT double tw_ceiling_flops(const char* kind, int threads, double seconds) {
  constexpr const char* kKinds[] = {"fp32", "bf16", "fp16", "int8"};
  const tw::ceilings::Loops* loops = tw::ceilings::loops_in_use();
  if (loops == nullptr || kind == nullptr) return -1.0;
  for (int i = 0; i < 4; ++i) {
    if (std::strcmp(kind, kKinds[i]) != 0) continue;
    constexpr int64_t kSteps = 4096;
    const int count = tw::resolve_threads(threads);
    const double ops = static_cast<double>(loops->ops_per_step[i]) * kSteps * count;
    return 1e-9 * tw::ceilings::best_rate(ops, seconds, [&](int64_t repeats) {
             auto task = [&](int, int) { loops->compute[i](repeats * kSteps); };
             tw::run_tasks(count, task);
           });
  }
  return -1.0;
}
