// The vector layer of AVX2 + FMA + F16C, and of AVX-VNNI on top of it.
#pragma once

#include <immintrin.h>

namespace tw::TW_ISA {

constexpr int kLanes = 8;
constexpr bool kHasDpbusd = TW_LEVEL == TW_LEVEL_avx2vnni;
constexpr bool kHasDpbf16 = false;

using VF = __m256;
using VI = __m256i;

// Keeps a value in a register, where the compiler may not reason about it, reorder its sums or spill it
// early.
TW_INLINE void pin(VF& v) { __asm__ volatile("" : "+x"(v)); }
TW_INLINE void pin(VI& v) { __asm__ volatile("" : "+x"(v)); }

TW_INLINE VF zero_f() { return _mm256_setzero_ps(); }
TW_INLINE VI zero_i() { return _mm256_setzero_si256(); }
TW_INLINE VF load(const float* p) { return _mm256_loadu_ps(p); }
TW_INLINE VI load_i(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
TW_INLINE void store(float* p, VF v) { _mm256_storeu_ps(p, v); }
TW_INLINE void store(int32_t* p, VI v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
TW_INLINE VF bcast(float x) { return _mm256_set1_ps(x); }
TW_INLINE VI bcast_i(uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
TW_INLINE VF fma(VF a, VF b, VF c) { return _mm256_fmadd_ps(a, b, c); }
TW_INLINE VF add(VF a, VF b) { return _mm256_add_ps(a, b); }
TW_INLINE VI add(VI a, VI b) { return _mm256_add_epi32(a, b); }
TW_INLINE VF mul(VF a, VF b) { return _mm256_mul_ps(a, b); }
TW_INLINE VF to_float(VI a) { return _mm256_cvtepi32_ps(a); }

TW_INLINE VI madd16(VI a, VI b) { return _mm256_madd_epi16(a, b); }
// acc + madd16(a, b). As an instruction, since the compiler would add pairs of products first and spill them.
TW_INLINE VI madd16_add(VI acc, VI a, VI b) {
  __asm__("vpaddd %1, %0, %0" : "+x"(acc) : "x"(_mm256_madd_epi16(a, b)));
  return acc;
}
// As an instruction, as above.
TW_INLINE VI dot_bytes16(VI acc, VI u, VI s) {
  __asm__("vpaddw %1, %0, %0" : "+x"(acc) : "x"(_mm256_maddubs_epi16(u, s)));
  return acc;
}
TW_INLINE VI bytes_even(VI v) { return _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8); }
TW_INLINE VI bytes_odd(VI v) { return _mm256_srai_epi16(v, 8); }
TW_INLINE VI flip_sign_bits8(VI v) { return _mm256_xor_si256(v, _mm256_set1_epi8(static_cast<char>(0x80))); }
#if TW_LEVEL == TW_LEVEL_avx2vnni
TW_INLINE VI dpbusd(VI acc, VI u, VI s) { return _mm256_dpbusd_avx_epi32(acc, u, s); }
#else
TW_INLINE VI dpbusd(VI acc, VI, VI) { return acc; }
#endif

TW_INLINE VF bf16_even(VI v) { return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16)); }
TW_INLINE VF bf16_odd(VI v) {
  return _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}
TW_INLINE VF dpbf16(VF acc, VI, VI) { return acc; }

TW_INLINE VF load_bf16(const uint16_t* p) {
  const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(raw), 16));
}
TW_INLINE VF load_fp16(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
TW_INLINE void store_bf16(uint16_t* p, VF v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i high = _mm256_srli_epi32(bits, 16);
  const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
  const __m256i rounded =
      _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
  const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const __m256i words = _mm256_blendv_epi8(rounded, quiet, nan);
  const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), packed);
}
TW_INLINE void store_fp16(uint16_t* p, VF v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
TW_INLINE VI load_i8_as_i16(const int8_t* p) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

TW_INLINE float sum(VF v) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
TW_INLINE int32_t sum(VI v) {
  __m128i half = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
}

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
