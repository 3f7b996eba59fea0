// y[T, D] = (H_m kron H_2^n) x / sqrt(D), on the CPU: checks and threads.
#include <cmath>
#include <vector>

#include "_host/cpu.hpp"
#include "_host/export.hpp"
#include "_host/levels.hpp"
#include "hadamard/host_kernels.hpp"
#include "hadamard/host_matrices.hpp"

TW_LEVELS(hadamard, KernelTable)

namespace tw::hadamard {

namespace {

using rows::Matrix;

const Signs& signs_of(int64_t order) {
  static constexpr Signs kOne = signs(1), kSigns[] = {signs(12), signs(20), signs(28), signs(36)};
  return order == 1 ? kOne : kSigns[(order - 12) / 8];
}

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

// Rows [begin, end); `room` holds a row of floats, `lanes` two rows of elements.
void transform(const Problem& p, const KernelTable& kernels, float* room, char* lanes, int64_t begin,
               int64_t end) {
  const int64_t d = p.x.cols;
  const auto factor = static_cast<float>(1.0 / std::sqrt(static_cast<double>(d)));
  for (int64_t t = begin; t < end; ++t) {
    const Row row{rows::gathered(p.x, t, lanes),
                  rows::target(p.y, t, lanes + d * p.x.size),
                  p.order,
                  d / p.order,
                  signs_of(p.order).at.data(),
                  factor,
                  room};
    kernels.transform[p.dtype](row);
    rows::scattered(p.y, t, row.y);
  }
}

int hadamard(const Call& call) {
  Level level;
  if (!current_level(&level)) return call.refuse("%s", level_error());
  Problem p{};
  if (!read(call, &p)) return TW_REFUSED;
  if (p.x.rows == 0 || p.x.cols == 0) return TW_OK;
  const int64_t d = p.x.cols, room = round_up(d + kSlack, 16);
  const int threads = rows::threads_for(call, 2 * p.x.rows * d * p.x.size, p.x.rows);
  std::vector<float> rooms(static_cast<size_t>(threads * room));
  const bool dense = p.x.dense() && p.y.dense();
  std::vector<char> lanes(dense ? 0 : static_cast<size_t>(2 * threads * d * p.x.size));
  parallel_for(p.x.rows, threads, [&](int64_t begin, int64_t end, int index) {
    transform(p, kernels_of(level), rooms.data() + index * room,
              dense ? nullptr : lanes.data() + 2 * index * d * p.x.size, begin, end);
  });
  return TW_OK;
}

}  // namespace
}  // namespace tw::hadamard

TW_EXPORT int tw_host_hadamard(const tw_call* call) { return tw::hadamard::hadamard(tw::Call(*call)); }
