// The vector layer of AVX-512 (F, BW, CD, DQ, VL) with VNNI and BF16.
#pragma once

// GCC 12's own header leaves the pass-through operand of unmasked intrinsics uninitialised.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#include <immintrin.h>

namespace tw::TW_ISA {

constexpr int kLanes = 16;
constexpr bool kHasDpbusd = true;
constexpr bool kHasDpbf16 = true;

using VF = __m512;
using VI = __m512i;

// Keeps a value in a register, where the compiler may not reason about it, reorder its sums or spill it
// early.
TW_INLINE void pin(VF& v) { __asm__ volatile("" : "+v"(v)); }
TW_INLINE void pin(VI& v) { __asm__ volatile("" : "+v"(v)); }

TW_INLINE VF zero_f() { return _mm512_setzero_ps(); }
TW_INLINE VI zero_i() { return _mm512_setzero_si512(); }
TW_INLINE VF load(const float* p) { return _mm512_loadu_ps(p); }
TW_INLINE VI load_i(const void* p) { return _mm512_loadu_si512(p); }
TW_INLINE void store(float* p, VF v) { _mm512_storeu_ps(p, v); }
TW_INLINE void store(int32_t* p, VI v) { _mm512_storeu_si512(p, v); }
TW_INLINE VF bcast(float x) { return _mm512_set1_ps(x); }
TW_INLINE VI bcast_i(uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
TW_INLINE VF fma(VF a, VF b, VF c) { return _mm512_fmadd_ps(a, b, c); }
TW_INLINE VF add(VF a, VF b) { return _mm512_add_ps(a, b); }
TW_INLINE VI add(VI a, VI b) { return _mm512_add_epi32(a, b); }
TW_INLINE VF mul(VF a, VF b) { return _mm512_mul_ps(a, b); }
TW_INLINE VF to_float(VI a) { return _mm512_cvtepi32_ps(a); }

TW_INLINE VI madd16(VI a, VI b) { return _mm512_madd_epi16(a, b); }
TW_INLINE VI madd16_add(VI acc, VI a, VI b) { return add(acc, madd16(a, b)); }
TW_INLINE VI dot_bytes16(VI acc, VI u, VI s) { return _mm512_add_epi16(acc, _mm512_maddubs_epi16(u, s)); }
TW_INLINE VI bytes_even(VI v) { return _mm512_srai_epi16(_mm512_slli_epi16(v, 8), 8); }
TW_INLINE VI bytes_odd(VI v) { return _mm512_srai_epi16(v, 8); }
TW_INLINE VI flip_sign_bits8(VI v) { return _mm512_xor_si512(v, _mm512_set1_epi8(static_cast<char>(0x80))); }
TW_INLINE VI dpbusd(VI acc, VI u, VI s) { return _mm512_dpbusd_epi32(acc, u, s); }

TW_INLINE VF bf16_even(VI v) { return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16)); }
TW_INLINE VF bf16_odd(VI v) {
  return _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}
TW_INLINE VF dpbf16(VF acc, VI a, VI b) {
  return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

TW_INLINE VF load_bf16(const uint16_t* p) {
  const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
}
TW_INLINE VF load_fp16(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
// Integer rounding and not vcvtneps2bf16, which flushes subnormals.
TW_INLINE void store_bf16(uint16_t* p, VF v) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i high = _mm512_srli_epi32(bits, 16);
  const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
  const __m512i rounded =
      _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  const __m512i words = _mm512_mask_or_epi32(rounded, nan, high, _mm512_set1_epi32(0x40));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(words));
}
TW_INLINE void store_fp16(uint16_t* p, VF v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
TW_INLINE VI load_i8_as_i16(const int8_t* p) {
  return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

TW_INLINE float sum(VF v) {
  const __m256 quarter = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(quarter), _mm256_extractf128_ps(quarter, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
TW_INLINE int32_t sum(VI v) { return _mm512_reduce_add_epi32(v); }

TW_INLINE void transpose8x8(const char* src, int64_t row_bytes, uint32_t* dst, int64_t dst_step) {
  __m256 r[8], t[8];
  for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps(reinterpret_cast<const float*>(src + i * row_bytes));
  for (int i = 0; i < 8; i += 4) {
    const __m256 a = _mm256_unpacklo_ps(r[i], r[i + 1]), b = _mm256_unpackhi_ps(r[i], r[i + 1]);
    const __m256 c = _mm256_unpacklo_ps(r[i + 2], r[i + 3]), d = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
    t[i] = _mm256_shuffle_ps(a, c, 0x44);
    t[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
    t[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
    t[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
  }
  float* out = reinterpret_cast<float*>(dst);
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(out + i * dst_step, _mm256_permute2f128_ps(t[i], t[i + 4], 0x20));
    _mm256_storeu_ps(out + (i + 4) * dst_step, _mm256_permute2f128_ps(t[i], t[i + 4], 0x31));
  }
}

}  // namespace tw::TW_ISA
