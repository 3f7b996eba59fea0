// y[T, W/2] = silu(gate) * up, on the CPU: checks and threads.
#include <xmmintrin.h>

#include <algorithm>
#include <vector>

#include "_host/cpu.hpp"
#include "_host/export.hpp"
#include "_host/levels.hpp"
#include "silu_mul/host_kernels.hpp"

TW_LEVELS(silu_mul, KernelTable)

namespace tw::silu_mul {

namespace {

using rows::Matrix;

// Elements that a thread takes at a time, so that a single long row occupies several.
constexpr int64_t kRun = 4096;

struct Problem {
  Matrix gate, up, y;
  int32_t dtype;
};

bool read(const Call& call, Problem* p) {
  const tw_tensor* x = rows::require_floats(call, "gate_up");
  if (x == nullptr) return false;
  const int64_t width = x->shape[1];
  if (width % 2 != 0) {
    call.refuse("\"gate_up\" has %lld columns; accepted: an even number, half of them the gate's",
                static_cast<long long>(width));
    return false;
  }
  const tw_tensor* y = rows::require_output(call, "y", x->dtype, x->shape[0], width / 2);
  if (y == nullptr) return false;
  p->gate = rows::matrix(*x).columns(0, width / 2);
  p->up = rows::matrix(*x).columns(width / 2, width);
  p->y = rows::matrix(*y);
  p->dtype = x->dtype;
  return true;
}

// Runs [begin, end) of all rows; `room` holds three runs of elements.
void multiply(const Problem& p, const KernelTable& kernels, char* room, int64_t begin, int64_t end) {
  const int64_t a_row = (p.y.cols + kRun - 1) / kRun, bytes = std::min(kRun, p.y.cols) * p.y.size;
  const bool stream = rows::streams(p.y);
  for (int64_t at = begin; at < end; ++at) {
    const int64_t t = at / a_row, first = at % a_row * kRun, last = std::min(first + kRun, p.y.cols);
    const Matrix y = p.y.columns(first, last);
    const Run run{rows::gathered(p.gate.columns(first, last), t, room),
                  rows::gathered(p.up.columns(first, last), t, room + bytes),
                  rows::target(y, t, room + 2 * bytes), last - first, stream};
    kernels.multiply[p.dtype](run);
    rows::scattered(y, t, run.y);
  }
  if (stream) _mm_sfence();
}

int silu_mul(const Call& call) {
  Level level;
  if (!current_level(&level)) return call.refuse("%s", level_error());
  Problem p{};
  if (!read(call, &p)) return TW_REFUSED;
  if (p.y.rows == 0 || p.y.cols == 0) return TW_OK;
  const int64_t runs = p.y.rows * ((p.y.cols + kRun - 1) / kRun);
  const int threads = rows::threads_for(call, 3 * p.y.rows * p.y.cols * p.y.size, runs);
  const int64_t room = 3 * std::min(kRun, p.y.cols) * p.y.size;
  const bool dense = p.gate.dense() && p.up.dense() && p.y.dense();
  std::vector<char> rooms(dense ? 0 : static_cast<size_t>(threads * room));
  parallel_for(runs, threads, [&](int64_t begin, int64_t end, int index) {
    multiply(p, kernels_of(level), dense ? nullptr : rooms.data() + index * room, begin, end);
  });
  return TW_OK;
}

}  // namespace
}  // namespace tw::silu_mul

TW_EXPORT int tw_host_silu_mul(const tw_call* call) { return tw::silu_mul::silu_mul(tw::Call(*call)); }
