// Logits of a block to weights, and the running maximum and sum of each row; for one ISA level.
//
// Logits are kept times log2(e), so that weights are powers of two. Vectors are GCC vector types, on which
// comparison and selection work lane by lane on every level.
#pragma once

#include "_host/simd/simd.hpp"
#include "paged_attention/host_problem.hpp"

namespace tw::paged::TW_ISA {

using namespace tw::TW_ISA;

typedef float LF __attribute__((vector_size(4 * kLanes)));
typedef int32_t LI __attribute__((vector_size(4 * kLanes)));

constexpr float kLog2e = 1.44269504088896341f;
constexpr float kInfinity = __builtin_inff();

TW_INLINE LF lf(float x) { return x - LF{}; }
TW_INLINE LF load_lf(const float* p) {
  LF v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
TW_INLINE void store_lf(float* p, LF v) { __builtin_memcpy(p, &v, sizeof v); }
TW_INLINE LF larger(LF a, LF b) { return a > b ? a : b; }
TW_INLINE LF fmadd(LF a, LF b, LF c) { return (LF)fma((VF)a, (VF)b, (VF)c); }

// 2^x within 2 ulp for x <= 127; 0 below -126; NaN stays NaN. The polynomial is the Taylor series of 2^f
// about 0 on [-1/2, 1/2], whose remainder after degree 7 is below 2^-26.
TW_INLINE LF exp2_lf(LF x) {
  const LF safe = x > lf(-126.0f) ? x : lf(-126.0f);
  const LF shifted = safe + lf(12582912.0f);  // 1.5 * 2^23: rounds to an integer in the low bits
  const LF f = safe - (shifted - lf(12582912.0f));
  LF p = lf(1.5252733804e-5f);
  p = fmadd(p, f, lf(1.5403530393e-4f));
  p = fmadd(p, f, lf(1.3333558146e-3f));
  p = fmadd(p, f, lf(9.6181291076e-3f));
  p = fmadd(p, f, lf(5.5504108665e-2f));
  p = fmadd(p, f, lf(2.4022650696e-1f));
  p = fmadd(p, f, lf(6.9314718056e-1f));
  p = fmadd(p, f, lf(1.0f));
  const LF value = (LF)((LI)p + ((LI)shifted << 23));
  const LF flushed = x < lf(-126.0f) ? lf(0.0f) : value;
  return x == x ? flushed : x;
}

// c * tanh(x / c). 1 - 2 / (e^2y + 1) loses what is small beside 1, so below 0.625 it is y + y^3 P(y^2),
// minimax (as tanh_of of _host/simd/math.hpp).
TW_INLINE LF capped(LF x, float cap) {
  const LF y = x * lf(1.0f / cap), square = y * y;
  LF p = lf(-0x1.76ab34p-8f);
  p = fmadd(p, square, lf(0x1.5256a6p-6f));
  p = fmadd(p, square, lf(-0x1.b84442p-5f));
  p = fmadd(p, square, lf(0x1.110768p-3f));
  p = fmadd(p, square, lf(-0x1.555534p-2f));
  const LF near = lf(cap) * fmadd(p * square, y, y);
  const LF twice = y * lf(2.0f * kLog2e);
  const LF bounded = twice > lf(80.0f) ? lf(80.0f) : twice;
  const LF far = lf(cap) - lf(2.0f * cap) / (exp2_lf(bounded) + lf(1.0f));
  return square < lf(0.390625f) ? near : far;
}

// The largest lane; lanes are no NaN.
TW_INLINE float highest(LF v) {
#if TW_LEVEL >= TW_LEVEL_avx512 && !defined(TW_EMULATE)
  return _mm512_reduce_max_ps((VF)v);
#else
  float most = v[0];
  for (int i = 1; i < kLanes; ++i) most = v[i] > most ? v[i] : most;
  return most;
#endif
}

// How a row's products become logits: position is the query's, slope its ALiBi slope.
struct RowRule {
  float scale, softcap, slope;
  int64_t position;
};

// logits[0, kBlock) of a row: products in, weights out, zero outside [lo, hi). `first` is the block's first
// token. Updates the row's top and sum; returns what its earlier results must be multiplied by.
TW_INLINE float weigh(float* logits, int lo, int hi, int64_t first, const RowRule& rule, float* top,
                      float* sum) {
  constexpr int kVectors = kBlock / kLanes;
  LI lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  LF s[kVectors];
  const float direct = rule.softcap == 0.0f ? rule.scale * kLog2e : rule.scale;
  for (int i = 0; i < kVectors; ++i) s[i] = load_lf(logits + i * kLanes) * lf(direct);
  if (rule.softcap != 0.0f) {
    for (int i = 0; i < kVectors; ++i) s[i] = capped(s[i], rule.softcap) * lf(kLog2e);
  }
  if (rule.slope != 0.0f) {
    const int32_t start = static_cast<int32_t>(first - rule.position);
    for (int i = 0; i < kVectors; ++i) {
      const LF distance = __builtin_convertvector(lane + (start + i * kLanes), LF);
      s[i] = fmadd(lf(rule.slope * kLog2e), distance, s[i]);
    }
  }
  if (lo > 0 || hi < kBlock) {
    for (int i = 0; i < kVectors; ++i) {
      const LI token = lane + i * kLanes;
      s[i] = (token >= lo) & (token < hi) ? s[i] : lf(-kInfinity);
    }
  }
  LF most = lf(*top);
  for (int i = 0; i < kVectors; ++i) most = larger(s[i], most);
  const float high = highest(most);
  // Only NaN was seen so far: any reference keeps it NaN.
  const float base = high == -kInfinity ? 0.0f : high;
  LF total = lf(0.0f);
  for (int i = 0; i < kVectors; ++i) {
    s[i] = exp2_lf(s[i] - lf(base));
    store_lf(logits + i * kLanes, s[i]);
    total += s[i];
  }
  const float decay = high == *top ? 1.0f : exp2_lf(lf(*top - base))[0];
  *sum = *sum * decay + tw::TW_ISA::sum((VF)total);
  *top = high;
  return decay;
}

}  // namespace tw::paged::TW_ISA
