// Beyond sums and products: comparisons, selection, 2^x, pairs of bf16. Included after simd.hpp.
//
//   VM                   one flag per lane
//   exp2_of<Degree>(x)   2^x for x <= 126, 0 below -127, NaN kept; 2^0 is exactly 1. Largest relative error:
//                        degree 3: 8.6e-5, degree 4: 2.9e-6, degree 5 and fp32 rounding: 2e-7
//   larger(a, b)         the larger, b where either is NaN
//   reciprocal(x)        1 / x within 2 units in the last place, for x from 1 to 2^126; NaN kept
//   bf16_pairs(a, b)     words of a bf16 of a and, above it, one of b
//   rounded(x)           to the nearest integer, ties to even, for |x| < 2^22
//   bytes_of(a, b, c, d) words of four bytes, a lowest
#pragma once

#include "_host/simd/simd.hpp"

namespace tw::TW_ISA {

#if defined(TW_EMULATE) || TW_LEVEL == TW_LEVEL_scalar

using VM = VS;

TW_INLINE VF sub(VF a, VF b) { return a - b; }
TW_INLINE VF div(VF a, VF b) { return a / b; }
TW_INLINE VF larger(VF a, VF b) { return a > b ? a : b; }
TW_INLINE VF select(VM m, VF yes, VF no) { return m ? yes : no; }
TW_INLINE VM greater(VF a, VF b) { return a > b; }
TW_INLINE VM equal(VF a, VF b) { return a == b; }
TW_INLINE VM within(VI x, VI low, VI high) { return ((VS)x >= (VS)low) & ((VS)x <= (VS)high); }
TW_INLINE bool any(VM m) {
  int32_t found = 0;
  for (int i = 0; i < kLanes; ++i) found |= m[i];
  return found != 0;
}
TW_INLINE VF absolute(VF v) { return (VF)((VI)v & 0x7fffffffu); }
TW_INLINE VF reciprocal(VF v) { return 1.0f / v; }
TW_INLINE VI bytes_of(VI a, VI b, VI c, VI d) { return a | b << 8 | c << 16 | d << 24; }
TW_INLINE VF copy_sign(VF size, VF sign) { return (VF)((VI)size | ((VI)sign & 0x80000000u)); }
// floor(x) for |x| < 2^31.
TW_INLINE VF floor_of(VF x) {
  const VF whole = __builtin_convertvector(__builtin_convertvector(x, VS), VF);
  return whole - (whole > x ? bcast(1.0f) : VF{});
}
TW_INLINE VI rounded(VF x) { return (VI)(x + 0x1.8p23f) - 0x4b400000u; }
// 2^n for whole n from -127 (which gives 0) to 127.
TW_INLINE VF power_of_two(VF n) { return (VF)((VI)(__builtin_convertvector(n, VS) + 127) << 23); }

TW_INLINE VI bf16_pairs(VF low, VF high) {
  VI words{};
  for (int i = 0; i < kLanes; ++i) {
    words[i] = float_to_bf16(low[i]) | static_cast<uint32_t>(float_to_bf16(high[i])) << 16;
  }
  return words;
}

#elif TW_LEVEL >= TW_LEVEL_avx512

using VM = __mmask16;

TW_INLINE VF sub(VF a, VF b) { return _mm512_sub_ps(a, b); }
TW_INLINE VF div(VF a, VF b) { return _mm512_div_ps(a, b); }
TW_INLINE VF larger(VF a, VF b) { return _mm512_max_ps(a, b); }
TW_INLINE VF select(VM m, VF yes, VF no) { return _mm512_mask_blend_ps(m, no, yes); }
TW_INLINE VM greater(VF a, VF b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
TW_INLINE VM equal(VF a, VF b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
TW_INLINE VM within(VI x, VI low, VI high) {
  return _mm512_mask_cmple_epi32_mask(_mm512_cmpge_epi32_mask(x, low), x, high);
}
TW_INLINE bool any(VM m) { return m != 0; }
TW_INLINE VF absolute(VF v) { return _mm512_abs_ps(v); }
// 14 bits, and a step of Newton's.
TW_INLINE VF reciprocal(VF v) {
  const VF r = _mm512_rcp14_ps(v);
  return _mm512_fmadd_ps(r, _mm512_fnmadd_ps(v, r, _mm512_set1_ps(1.0f)), r);
}
TW_INLINE VI bytes_of(VI a, VI b, VI c, VI d) {
  return _mm512_ternarylogic_epi32(_mm512_or_si512(a, _mm512_slli_epi32(b, 8)), _mm512_slli_epi32(c, 16),
                                   _mm512_slli_epi32(d, 24), 0xfe);
}
TW_INLINE VF copy_sign(VF size, VF sign) {
  return _mm512_castsi512_ps(_mm512_or_si512(
      _mm512_castps_si512(size), _mm512_and_si512(_mm512_castps_si512(sign), _mm512_set1_epi32(INT32_MIN))));
}
TW_INLINE VI rounded(VF x) { return _mm512_cvtps_epi32(x); }

TW_INLINE VI bf16_pairs(VF low, VF high) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7,
                                         22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
}

#else

using VM = __m256;

TW_INLINE VF sub(VF a, VF b) { return _mm256_sub_ps(a, b); }
TW_INLINE VF div(VF a, VF b) { return _mm256_div_ps(a, b); }
TW_INLINE VF larger(VF a, VF b) { return _mm256_max_ps(a, b); }
TW_INLINE VF select(VM m, VF yes, VF no) { return _mm256_blendv_ps(no, yes, m); }
TW_INLINE VM greater(VF a, VF b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
TW_INLINE VM equal(VF a, VF b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
TW_INLINE VM within(VI x, VI low, VI high) {
  const VI outside = _mm256_or_si256(_mm256_cmpgt_epi32(low, x), _mm256_cmpgt_epi32(x, high));
  return _mm256_castsi256_ps(_mm256_xor_si256(outside, _mm256_set1_epi32(-1)));
}
TW_INLINE bool any(VM m) { return _mm256_movemask_ps(m) != 0; }
TW_INLINE VF absolute(VF v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }
// 11 bits at least, and a step of Newton's, which squares the error.
TW_INLINE VF reciprocal(VF v) {
  const VF r = _mm256_rcp_ps(v);
  return _mm256_fmadd_ps(r, _mm256_fnmadd_ps(v, r, _mm256_set1_ps(1.0f)), r);
}
TW_INLINE VI bytes_of(VI a, VI b, VI c, VI d) {
  return _mm256_or_si256(_mm256_or_si256(a, _mm256_slli_epi32(b, 8)),
                         _mm256_or_si256(_mm256_slli_epi32(c, 16), _mm256_slli_epi32(d, 24)));
}
TW_INLINE VF copy_sign(VF size, VF sign) {
  return _mm256_or_ps(size, _mm256_and_ps(_mm256_set1_ps(-0.0f), sign));
}
TW_INLINE VF floor_of(VF x) { return _mm256_floor_ps(x); }
TW_INLINE VI rounded(VF x) { return _mm256_cvtps_epi32(x); }
TW_INLINE VF power_of_two(VF n) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
// Only levels with dot products of bf16 make such pairs.
TW_INLINE VI bf16_pairs(VF, VF) { return zero_i(); }

#endif

// 2^f on [0, 1): minimax in relative error among polynomials with p(0) = 1.
template <int Degree>
TW_INLINE VF exp2_fraction(VF f) {
  if constexpr (Degree == 3) {
    constexpr float c[] = {0x1.63e65ep-1f, 0x1.d23726p-3f, 0x1.3bab5ep-4f};
    return fma(f, fma(f, fma(f, bcast(c[2]), bcast(c[1])), bcast(c[0])), bcast(1.0f));
  } else if constexpr (Degree == 4) {
    constexpr float c[] = {0x1.62d6c6p-1f, 0x1.ee245cp-3f, 0x1.abf80ap-5f, 0x1.b7f81ep-7f};
    const VF high = fma(f, fma(f, bcast(c[3]), bcast(c[2])), bcast(c[1]));
    return fma(f, fma(f, high, bcast(c[0])), bcast(1.0f));
  } else {
    static_assert(Degree == 5);
    constexpr float c[] = {0x1.62e4bap-1f, 0x1.ebdb56p-3f, 0x1.c91cf0p-5f, 0x1.277820p-7f, 0x1.e975c2p-10f};
    const VF high = fma(f, fma(f, fma(f, bcast(c[4]), bcast(c[3])), bcast(c[2])), bcast(c[1]));
    return fma(f, fma(f, high, bcast(c[0])), bcast(1.0f));
  }
}

template <int Degree>
TW_INLINE VF exp2_of(VF x) {
#if !defined(TW_EMULATE) && TW_LEVEL >= TW_LEVEL_avx512
  // x - floor(x), which is 0 for infinities, and p * 2^floor(x).
  return _mm512_scalef_ps(exp2_fraction<Degree>(_mm512_reduce_ps(x, 1)), x);
#else
  x = larger(bcast(-127.0f), x);
  const VF whole = floor_of(x);
  return mul(exp2_fraction<Degree>(sub(x, whole)), power_of_two(whole));
#endif
}

// tanh(x) within 2e-7 of its size. A rational function that loses nothing near 0, and 1 - 2 / (e^2x + 1)
// beyond 0.625; NaN kept.
TW_INLINE VF tanh_of(VF x) {
  const VF size = absolute(x), square = mul(x, x);
  // x + x^3 P(x^2) on [-0.625, 0.625], minimax.
  constexpr float c[] = {-0x1.555534p-2f, 0x1.110768p-3f, -0x1.b84442p-5f, 0x1.5256a6p-6f, -0x1.76ab34p-8f};
  VF p = fma(square, bcast(c[4]), bcast(c[3]));
  p = fma(square, fma(square, fma(square, p, bcast(c[2])), bcast(c[1])), bcast(c[0]));
  const VF near = fma(mul(p, square), x, x);
  // Where it would overflow, tanh is 1 long before.
  const VF clipped = select(greater(size, bcast(16.0f)), bcast(16.0f), size);
  const VF power = exp2_of<5>(mul(clipped, bcast(2.8853900818f)));
  const VF far = sub(bcast(1.0f), div(bcast(2.0f), add(power, bcast(1.0f))));
  return select(greater(bcast(0.625f), size), near, copy_sign(far, x));
}

}  // namespace tw::TW_ISA
