// Threads share the panels of all groups, weighed by what they cost; each takes consecutive ones and
// multiplies a group's part of them in one call of gemm, whose results do not depend on where columns are
// cut.
#include "grouped_gemm/host_run.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "_host/thread_pool.hpp"
#include "gemm/host_runner.hpp"

namespace tw::grouped_gemm {

namespace {

constexpr int64_t kBandRows =
    512;  // of a group that are multiplied at a time, so that threads can share them
// What reading a panel costs, in rows multiplied with it; tile registers multiply faster than memory reads.
constexpr int64_t kPanelCost = 12, kPanelCostOfTiles = 48;

// Some rows of a group times all panels; `cost` is that of one panel, `before` that of all earlier bands.
struct Band {
  Group rows;
  int64_t cost, before;
};

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

class Runner {
 public:
  explicit Runner(const Problem& problem)
      : p_(problem), w_(problem.whole), panels_(ceil_div(w_.n, gemm::kPanelCols)) {
    const int64_t unit = w_.kernels->row_unit[w_.kind];
    const int64_t reading = unit == 1 ? kPanelCost : kPanelCostOfTiles;
    for (const Group& group : p_.groups) {
      const gemm::Parts parts = gemm::cut(group.end - group.begin, kBandRows);
      for (int64_t i = 0; i < parts.count; ++i) {
        const int64_t begin = group.begin + parts.begin(i), rows = parts.size(i);
        const int64_t cost = ceil_div(rows, unit) * unit + reading;
        bands_.push_back({{group.expert, begin, begin + rows}, cost, total_});
        total_ += cost * panels_;
      }
    }
  }

  bool run() const {
    zero_rest();
    const int64_t useful = 1 + p_.rest * w_.n * w_.k / gemm::kMacsPerThread;
    const int threads = static_cast<int>(std::min<int64_t>(useful, w_.threads));
    std::atomic<bool> done{true};
    parallel_for(total_, threads, [&](int64_t begin, int64_t end, int) {
      if (!share(begin, end)) done = false;
    });
    return done;
  }

 private:
  // The panels whose cost begins in [begin, end) of the total.
  bool share(int64_t begin, int64_t end) const {
    auto after = [](int64_t cost, const Band& band) { return cost < band.before; };
    auto band = std::upper_bound(bands_.begin(), bands_.end(), begin, after) - 1;
    for (; band != bands_.end() && band->before < end; ++band) {
      const int64_t first = std::max<int64_t>(0, ceil_div(begin - band->before, band->cost));
      const int64_t last = std::min(panels_, ceil_div(end - band->before, band->cost));
      if (first < last && !multiply(band->rows, first, last)) return false;
    }
    return true;
  }

  // Panels [first, last) of a band.
  bool multiply(const Group& rows, int64_t first, int64_t last) const {
    const int64_t col = first * gemm::kPanelCols, element = gemm::kElementBytes[w_.kind];
    gemm::Problem part = w_;
    part.threads = 1;
    part.m = rows.end - rows.begin;
    part.n = std::min(w_.n, last * gemm::kPanelCols) - col;
    if (w_.k != 0) {  // else there may be no memory to point into
      part.a.data += rows.begin * w_.a.row_stride * element;
      part.b.data += rows.expert * p_.b_bytes;
      part.b.data += w_.prepacked ? first * w_.panel_bytes : col * w_.b.col_stride * element;
    }
    part.c.data += (rows.begin * w_.c.row_stride + col * w_.c.col_stride) * gemm::kOutBytes[w_.out];
    part.c.rows = part.m;
    part.c.cols = part.n;
    move(&part.bias, rows.expert * p_.bias_step + col * w_.bias.stride);
    move(&part.col_scale, rows.expert * p_.scale_step + col * w_.col_scale.stride);
    move(&part.row_scale, rows.begin * w_.row_scale.stride);
    return gemm::run(part);
  }

  static void move(gemm::Strided* vector, int64_t elements) {
    if (vector->data != nullptr) vector->data += elements * dtype_size(vector->dtype);
  }

  void zero_rest() const {
    const int64_t bytes = gemm::kOutBytes[w_.out];
    for (int64_t row = p_.rest; row < w_.m; ++row) {
      char* to = w_.c.data + row * w_.c.row_stride * bytes;
      if (w_.c.col_stride == 1) {
        std::memset(to, 0, static_cast<size_t>(w_.n * bytes));
        continue;
      }
      for (int64_t col = 0; col < w_.n; ++col) {
        std::memset(to + col * w_.c.col_stride * bytes, 0, static_cast<size_t>(bytes));
      }
    }
  }

  const Problem& p_;
  const gemm::Problem& w_;
  const int64_t panels_;
  std::vector<Band> bands_;
  int64_t total_ = 0;
};

}  // namespace

bool run(const Problem& problem) {
  if (problem.whole.m == 0 || problem.whole.n == 0) return true;
  return Runner(problem).run();
}

}  // namespace tw::grouped_gemm
