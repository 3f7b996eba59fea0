// A checked mask_gemm problem: which rows take which path, and their products.
#pragma once

#include <array>

#include "gemm/host_run.hpp"
#include "mask_gemm/selection.hpp"

namespace tw::mask_gemm {

enum Path : int { kInBf16 = 0, kInInt8 = 1 };
constexpr int kPaths = 2;

// Each path's product as if it had all rows, with the same c; that of bf16 counts where its weights are
// resident.
struct Problem {
  gemm::Problem of[kPaths];
};

// The rows of each path, ascending.
class Rows {
 public:
  void add(Path path, int64_t row) { rows_[path][count_[path]++] = static_cast<int16_t>(row); }
  int64_t count(Path path) const { return count_[path]; }
  int64_t row(Path path, int64_t i) const { return rows_[path][i]; }
  // The end of the run of neighbours that begins with row number i of a path.
  int64_t run_end(Path path, int64_t i) const {
    int64_t end = i + 1;
    while (end < count_[path] && rows_[path][end] == rows_[path][end - 1] + 1) ++end;
    return end;
  }
  int64_t runs(Path path) const {
    int64_t found = 0;
    for (int64_t i = 0; i < count_[path]; i = run_end(path, i)) ++found;
    return found;
  }

 private:
  static_assert(kMostRows <= INT16_MAX);
  std::array<int16_t, kMostRows> rows_[kPaths];
  int64_t count_[kPaths] = {0, 0};
};

// Writes every row of c. False when scratch memory could not be had.
bool run(const Problem& problem, const Rows& rows);

}  // namespace tw::mask_gemm
