// Hadamard matrices by Paley's constructions, as matrices.py describes them.
#pragma once

#include <array>
#include <cstdint>

namespace tw::hadamard {

constexpr int kLargestOrder = 36;
constexpr int64_t kLargest = 32768;

// H_m, row after row.
struct Signs {
  int64_t order = 0;  // 0: no such matrix
  std::array<float, kLargestOrder * kLargestOrder> at{};
};

constexpr int64_t prime_of(int64_t order) {
  return order == 12 ? 11 : order == 20 ? 19 : order == 28 ? 13 : order == 36 ? 17 : 0;
}

constexpr bool is_square(int64_t a, int64_t q) {
  for (int64_t i = 1; i < q; ++i) {
    if (i * i % q == a) return true;
  }
  return false;
}

// S of matrices.py: 0 on its diagonal.
constexpr int sign(int64_t i, int64_t j, int64_t q) {
  if (i == j) return 0;
  if (i == 0 || j == 0) return i == 0 || q % 4 == 1 ? 1 : -1;
  return is_square((i - j + q) % q, q) ? 1 : -1;
}

constexpr Signs signs(int64_t order) {
  Signs h;
  h.order = order;
  const int64_t q = prime_of(order);
  for (int64_t i = 0; i < order; ++i) {
    for (int64_t j = 0; j < order; ++j) {
      float value = 1.0f;
      if (q % 4 == 3) {
        value = sign(i, j, q) < 0 ? -1.0f : 1.0f;
      } else if (q != 0) {
        const int s = sign(i / 2, j / 2, q);
        // [[1, -1], [-1, -1]] for a 0, s * [[1, 1], [1, -1]] for others.
        const bool negative = s == 0 ? i % 2 + j % 2 > 0 : (i % 2 + j % 2 == 2) != (s < 0);
        value = negative ? -1.0f : 1.0f;
      }
      h.at[static_cast<size_t>(i * order + j)] = value;
    }
  }
  return h;
}

// H_m as sums of sums. Four blocks add up in eight ways besides the sign of the whole: a +- b +- c +- d.
// Every row of H_m is a sum of such sums, one of each four blocks.
constexpr int kWays = 8;

// Way 4 * (b is subtracted) + (0: c + d, 1: -c - d, 2: c - d, 3: d - c).
constexpr int way(bool b_minus, bool c_minus, bool d_minus) {
  return 4 * b_minus + (c_minus == d_minus ? c_minus : 2 + c_minus);
}

template <int M>
struct Plan {
  static constexpr int kFours = M / 4;
  int way[M][kFours] = {};     // of four blocks, the first of them added
  bool minus[M][kFours] = {};  // or subtracted
  int first[M] = {};           // which four a row begins with: the first that is added, 0 if there is none
};

template <int M>
constexpr Plan<M> plan() {
  const Signs h = signs(M);
  Plan<M> p;
  for (int row = 0; row < M; ++row) {
    p.first[row] = -1;
    for (int four = 0; four < Plan<M>::kFours; ++four) {
      const float* s = h.at.data() + row * M + 4 * four;
      p.minus[row][four] = s[0] < 0;
      p.way[row][four] = way(s[0] != s[1], s[0] != s[2], s[0] != s[3]);
      if (p.first[row] < 0 && s[0] > 0) p.first[row] = four;
    }
    if (p.first[row] < 0) p.first[row] = 0;
  }
  return p;
}

// The order m of D = m * 2^n, or 0.
constexpr int64_t order_of(int64_t d) {
  for (const int64_t m : {1, 12, 20, 28, 36}) {
    if (d <= 0 || d > kLargest || d % m != 0) continue;
    const int64_t power = d / m;
    if ((power & (power - 1)) == 0) return m;
  }
  return 0;
}

}  // namespace tw::hadamard
