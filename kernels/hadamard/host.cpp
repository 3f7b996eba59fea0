// y[T, D] = (H_m kron H_2^n) x / sqrt(D), on the CPU: checks and threads.
#include <cmath>

#include "_host/cpu.hpp"
#include "_host/export.hpp"
#include "_host/levels.hpp"
#include "hadamard/host_kernels.hpp"
#include "hadamard/host_matrices.hpp"

TW_LEVELS(hadamard, KernelTable)

namespace tw::hadamard {

namespace {

using rows::Matrix;

struct Problem {
  Matrix x, y;
  int32_t dtype;
  int64_t order;
};

bool read(const Call& call, Problem* p) {
  const tw_tensor* x = rows::require_floats(call, "x");
  if (x == nullptr) return false;
  const int64_t d = x->shape[1];
  p->order = order_of(d);
  if (d != 0 && p->order == 0) {
    call.refuse("rows of %lld channels; accepted: 0 and m * 2^n up to %lld with m 1, 12, 20, 28 or 36",
                static_cast<long long>(d), static_cast<long long>(kLargest));
    return false;
  }
  const tw_tensor* y = rows::require_output(call, "y", x->dtype, x->shape[0], d);
  if (y == nullptr) return false;
  p->x = rows::matrix(*x);
  p->y = rows::matrix(*y);
  p->dtype = x->dtype;
  return true;
}

// Rows [begin, end) that lie side by side.
void transform(const Problem& p, const KernelTable& kernels, Rows rows, int64_t begin, int64_t end) {
  rows.x = rows::steps(p.x, begin);
  rows.y = rows::steps(p.y, begin);
  rows.rows = end - begin;
  rows.stream = rows::streams(p.y);
  kernels.transform[p.dtype](rows);
}

// Rows [begin, end) one at a time, side by side in `lanes`, which holds two of them.
void transform_gathered(const Problem& p, const KernelTable& kernels, Rows rows, char* lanes, int64_t begin,
                        int64_t end) {
  rows.rows = 1;
  for (int64_t t = begin; t < end; ++t) {
    rows.x.data = const_cast<char*>(rows::gathered(p.x, t, lanes));
    rows.y.data = rows::target(p.y, t, lanes + p.x.cols * p.x.size);
    kernels.transform[p.dtype](rows);
    rows::scattered(p.y, t, rows.y.data);
  }
}

int hadamard(const Call& call) {
  Level level;
  if (!current_level(&level)) return call.refuse("%s", level_error());
  Problem p{};
  if (!read(call, &p)) return TW_REFUSED;
  if (p.x.rows == 0 || p.x.cols == 0) return TW_OK;
  const int64_t d = p.x.cols;
  const int threads = rows::threads_for(call, 2 * p.x.rows * d * p.x.size, p.x.rows);
  const bool dense = p.x.dense() && p.y.dense();
  const int64_t room = round_up(4 * d, kAlign), lanes = dense ? 0 : round_up(2 * d * p.x.size, kAlign);
  thread_local Workspace workspace;
  char* memory = workspace.get(threads * (room + lanes));
  if (memory == nullptr) return call.fail("no memory for rows of %lld channels", static_cast<long long>(d));
  parallel_for(p.x.rows, threads, [&](int64_t begin, int64_t end, int index) {
    char* own = memory + index * (room + lanes);
    Rows rows{};
    rows.order = p.order;
    rows.power = d / p.order;
    rows.factor = static_cast<float>(1.0 / std::sqrt(static_cast<double>(d)));
    rows.room = reinterpret_cast<float*>(own);
    if (dense) return transform(p, kernels_of(level), rows, begin, end);
    transform_gathered(p, kernels_of(level), rows, own + room, begin, end);
  });
  return TW_OK;
}

}  // namespace
}  // namespace tw::hadamard

TW_EXPORT int tw_host_hadamard(const tw_call* call) { return tw::hadamard::hadamard(tw::Call(*call)); }
