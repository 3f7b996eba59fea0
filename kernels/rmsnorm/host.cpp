// y[T, D] = h * rsqrt(mean(h^2) + eps) * weight[D], on the CPU: checks and threads.
#include <vector>

#include "_host/cpu.hpp"
#include "_host/export.hpp"
#include "_host/levels.hpp"
#include "rmsnorm/host_kernels.hpp"

TW_LEVELS(rmsnorm, KernelTable)

namespace tw::rmsnorm {

namespace {

using rows::Matrix;

struct Problem {
  Matrix x, weight, residual, y, h;
  int32_t dtype;
  float eps;
  bool adds;
};

bool read(const Call& call, Problem* p) {
  const tw_tensor* x = rows::require_floats(call, "x");
  if (x == nullptr) return false;
  const int64_t t = x->shape[0], d = x->shape[1];
  const tw_tensor* weight = rows::require_like(call, "weight", x->dtype, -1, d);
  if (weight == nullptr) return false;
  const tw_tensor* y = rows::require_output(call, "y", x->dtype, t, d);
  if (y == nullptr) return false;
  const double eps = call.number("eps", 1e-6);
  if (!(eps >= 0.0)) {
    call.refuse("eps is %g; accepted: 0 or more", eps);
    return false;
  }
  p->adds = call.attr("residual", 0) != 0;
  if (p->adds) {
    const tw_tensor* residual = rows::require_like(call, "residual", x->dtype, t, d);
    if (residual == nullptr) return false;
    const tw_tensor* h = rows::require_output(call, "h", x->dtype, t, d);
    if (h == nullptr) return false;
    p->residual = rows::matrix(*residual);
    p->h = rows::matrix(*h);
    if (h->data == y->data && Call::count(*h) != 0) {
      call.refuse("\"h\" and \"y\" are the same memory; accepted: one of each");
      return false;
    }
  }
  p->x = rows::matrix(*x);
  p->weight = rows::matrix(*weight);
  p->y = rows::matrix(*y);
  p->dtype = x->dtype;
  p->eps = static_cast<float>(eps);
  return true;
}

// What all rows share.
Rows shared(const Problem& p, const char* weight, const float* wide) {
  Rows rows{};
  rows.weight = weight;
  rows.wide = wide;
  rows.count = p.x.cols;
  rows.eps = p.eps;
  return rows;
}

// Rows [begin, end) that lie side by side.
void normalise(const Problem& p, const KernelTable& kernels, Rows rows, int64_t begin, int64_t end) {
  rows.x = rows::steps(p.x, begin);
  rows.y = rows::steps(p.y, begin);
  if (p.adds) {
    rows.residual = rows::steps(p.residual, begin);
    rows.h = rows::steps(p.h, begin);
  }
  rows.rows = end - begin;
  rows.stream = rows::streams(p.y);
  kernels.normalise[p.dtype](rows);
}

// Rows [begin, end) one at a time, side by side in `room`, which holds four of them.
void normalise_gathered(const Problem& p, const KernelTable& kernels, Rows rows, char* room, int64_t begin,
                        int64_t end) {
  const int64_t row_bytes = p.x.cols * p.x.size;
  char *x = room, *residual = room + row_bytes, *y = room + 2 * row_bytes, *h = room + 3 * row_bytes;
  rows.rows = 1;
  for (int64_t t = begin; t < end; ++t) {
    rows.x.data = const_cast<char*>(rows::gathered(p.x, t, x));
    rows.y.data = rows::target(p.y, t, y);
    if (p.adds) {
      rows.residual.data = const_cast<char*>(rows::gathered(p.residual, t, residual));
      rows.h.data = rows::target(p.h, t, h);
    }
    kernels.normalise[p.dtype](rows);
    rows::scattered(p.y, t, rows.y.data);
    if (p.adds) rows::scattered(p.h, t, rows.h.data);
  }
}

int rmsnorm(const Call& call) {
  Level level;
  if (!current_level(&level)) return call.refuse("%s", level_error());
  Problem p{};
  if (!read(call, &p)) return TW_REFUSED;
  if (p.x.rows == 0 || p.x.cols == 0) return TW_OK;
  const int64_t row_bytes = p.x.cols * p.x.size;
  const int threads = rows::threads_for(call, 2 * p.x.rows * row_bytes, p.x.rows);
  const bool dense = p.x.dense() && p.y.dense() && p.weight.dense() && p.residual.dense() && p.h.dense();
  std::vector<char> rooms(dense ? 0 : static_cast<size_t>((4 * threads + 1) * row_bytes));
  const char* weight = rows::gathered(p.weight, 0, rooms.data());
  const KernelTable& kernels = kernels_of(level);
  const float* wide = nullptr;
  // One row would be done before its weights are widened.
  if (p.x.rows > 1) {
    thread_local Workspace workspace;
    auto* room = reinterpret_cast<float*>(workspace.get(widened(p.x.cols) * 4));
    if (room == nullptr) return call.fail("no memory for %lld weights", static_cast<long long>(p.x.cols));
    kernels.widen[p.dtype](weight, p.x.cols, room);
    wide = room;
  }
  const Rows all = shared(p, weight, wide);
  parallel_for(p.x.rows, threads, [&](int64_t begin, int64_t end, int index) {
    if (dense) return normalise(p, kernels, all, begin, end);
    normalise_gathered(p, kernels, all, rooms.data() + (4 * index + 1) * row_bytes, begin, end);
  });
  return TW_OK;
}

}  // namespace
}  // namespace tw::rmsnorm

TW_EXPORT int tw_host_rmsnorm(const tw_call* call) { return tw::rmsnorm::rmsnorm(tw::Call(*call)); }
