// H_m of m blocks, in place; compiled once per ISA level. The order of sums is that of the plan, whatever the
// vectors: all levels give the same bits.
#pragma once

#include <utility>

#include "_host/simd/math.hpp"
#include "hadamard/host_matrices.hpp"

namespace tw::hadamard::TW_ISA {
namespace {

using namespace tw::TW_ISA;

// Vectors, or single floats where blocks are shorter than a vector.
struct Lanes {
  using Value = VF;
  static constexpr int kCount = kLanes;
  TW_INLINE VF load(const float* p) { return tw::TW_ISA::load(p); }
  TW_INLINE void store(float* p, VF v) { tw::TW_ISA::store(p, v); }
  TW_INLINE VF zero() { return zero_f(); }
  TW_INLINE VF add(VF a, VF b) { return tw::TW_ISA::add(a, b); }
  TW_INLINE VF sub(VF a, VF b) { return tw::TW_ISA::sub(a, b); }
};
struct One {
  using Value = float;
  static constexpr int kCount = 1;
  TW_INLINE float load(const float* p) { return *p; }
  TW_INLINE void store(float* p, float v) { *p = v; }
  TW_INLINE float zero() { return 0.0f; }
  TW_INLINE float add(float a, float b) { return a + b; }
  TW_INLINE float sub(float a, float b) { return a - b; }
};

// The eight ways to add four blocks up.
template <class L>
TW_INLINE void add_fours(const float* v, int64_t power, typename L::Value* ways) {
  const auto a = L::load(v), b = L::load(v + power);
  const auto c = L::load(v + 2 * power), d = L::load(v + 3 * power);
  const auto ab = L::add(a, b), ba = L::sub(a, b), cd = L::add(c, d), dc = L::sub(c, d);
  ways[0] = L::add(ab, cd);
  ways[1] = L::sub(ab, cd);
  ways[2] = L::add(ab, dc);
  ways[3] = L::sub(ab, dc);
  ways[4] = L::add(ba, cd);
  ways[5] = L::sub(ba, cd);
  ways[6] = L::add(ba, dc);
  ways[7] = L::sub(ba, dc);
}

template <int M>
inline constexpr Plan<M> kPlan = plan<M>();

// The sum of a row from four Four on, but for the one that it began with.
template <class L, int M, int Row, int Four>
TW_INLINE typename L::Value with_fours(typename L::Value sum, const typename L::Value (*ways)[kWays]) {
  constexpr const Plan<M>& kP = kPlan<M>;
  if constexpr (Four == Plan<M>::kFours) {
    return sum;
  } else if constexpr (Four == kP.first[Row]) {
    return with_fours<L, M, Row, Four + 1>(sum, ways);
  } else {
    const auto one = ways[Four][kP.way[Row][Four]];
    return with_fours<L, M, Row, Four + 1>(kP.minus[Row][Four] ? L::sub(sum, one) : L::add(sum, one), ways);
  }
}

template <class L, int M, int Row>
TW_INLINE void put_row(float* v, int64_t power, const typename L::Value (*ways)[kWays]) {
  constexpr int kFirst = kPlan<M>.first[Row];
  const auto first = ways[kFirst][kPlan<M>.way[Row][kFirst]];
  const auto start = kPlan<M>.minus[Row][kFirst] ? L::sub(L::zero(), first) : first;
  L::store(v + Row * power, with_fours<L, M, Row, 0>(start, ways));
}

template <class L, int M, int... Rows>
TW_INLINE void put_rows(float* v, int64_t power, const typename L::Value (*ways)[kWays],
                        std::integer_sequence<int, Rows...>) {
  (put_row<L, M, Rows>(v, power, ways), ...);
}

template <class L, int M>
void mixed_by(float* v, int64_t power) {
  for (int64_t i = 0; i < power; i += L::kCount) {
    typename L::Value ways[M / 4][kWays];
    for (int four = 0; four < M / 4; ++four) add_fours<L>(v + i + 4 * four * power, power, ways[four]);
    put_rows<L, M>(v + i, power, ways, std::make_integer_sequence<int, M>());
  }
}

template <class L>
void mixed(float* v, int64_t order, int64_t power) {
  if (order == 12) return mixed_by<L, 12>(v, power);
  if (order == 20) return mixed_by<L, 20>(v, power);
  if (order == 28) return mixed_by<L, 28>(v, power);
  if (order == 36) return mixed_by<L, 36>(v, power);
}

}  // namespace
}  // namespace tw::hadamard::TW_ISA
