// What encoders and decoders of codes need beyond _host/simd: minima, exact rounding, narrow loads and
// stores.
//
// A minimum or maximum with NaN is one of its operands or anything between; rounding is to the nearest even
// integer and wants a magnitude below 2**22.
#pragma once

#include <cstdint>

#include "_host/simd/simd.hpp"

namespace tw::TW_ISA {
namespace {

#if defined(TW_EMULATE) || TW_LEVEL == TW_LEVEL_scalar
TW_INLINE VF lower(VF a, VF b) { return a < b ? a : b; }
TW_INLINE VF higher(VF a, VF b) { return a > b ? a : b; }
TW_INLINE VF magnitude(VF a) { return (VF)((VI)a & 0x7fffffffu); }
TW_INLINE VF minus(VF a, VF b) { return a - b; }
TW_INLINE VF over(VF a, VF b) { return a / b; }
constexpr bool kHasWordMax = false;
TW_INLINE VI larger_words(VI a, VI) { return a; }
TW_INLINE VF larger_magnitude(VF a, VF b) { return higher(a, magnitude(b)); }
TW_INLINE uint16_t half_bits(float a) { return float_to_fp16(a); }
TW_INLINE float half_value(uint16_t a) { return fp16_to_float(a); }
TW_INLINE VF one_where_zero(VF a) { return a == 0.0f ? a + 1.0f : a; }
TW_INLINE VI rounded(VF a) { return (VI)(a + 0x1.8p23f) - 0x4b400000u; }
template <int N>
TW_INLINE VI shifted(VI a) {
  return a << N;
}
TW_INLINE VI either(VI a, VI b) { return a | b; }
TW_INLINE VI both(VI a, VI b) { return a & b; }
template <int N>
TW_INLINE VI shifted_down(VI a) {
  return (VI)((VS)a >> N);
}
TW_INLINE VI shifted_down_by(VI a, int n) { return (VI)((VS)a >> n); }
TW_INLINE VI as_bits(VF a) { return (VI)a; }
TW_INLINE VF as_float(VI a) { return (VF)a; }
TW_INLINE VI load_bytes(const int8_t* from) {
  VI v{};
  for (int i = 0; i < kLanes; ++i) v[i] = static_cast<uint32_t>(from[i]);
  return v;
}
TW_INLINE VI load_words(const int16_t* from) {
  VI v{};
  for (int i = 0; i < kLanes; ++i) v[i] = static_cast<uint16_t>(from[i]);
  return v;
}
TW_INLINE void store_bytes(int8_t* to, VI a) {
  for (int i = 0; i < kLanes; ++i) to[i] = static_cast<int8_t>(a[i]);
}
constexpr bool kHasSplitCodes = false;
template <bool kLimited>
TW_INLINE void store_four_split(int8_t*, VF, VF, VF, VF) {}
template <bool kLimited = false>
TW_INLINE void store_four(int8_t* to, VF a, VF b, VF c, VF d) {
  const VF four[] = {a, b, c, d};
  for (int j = 0; j < 4; ++j) {
    store_bytes(to + j * kLanes, rounded(lower(higher(four[j], bcast(-127.0f)), bcast(127.0f))));
  }
}
TW_INLINE void store_words(int16_t* to, VI a) {
  for (int i = 0; i < kLanes; ++i) to[i] = static_cast<int16_t>(a[i]);
}
// Of all lanes, in a tree.
TW_INLINE float highest(VF v) {
  float lanes[kLanes];
  store(lanes, v);
  for (int n = kLanes / 2; n > 0; n /= 2) {
    for (int i = 0; i < n; ++i) lanes[i] = lanes[i] > lanes[i + n] ? lanes[i] : lanes[i + n];
  }
  return lanes[0];
}
TW_INLINE float lowest(VF v) {
  float lanes[kLanes];
  store(lanes, v);
  for (int n = kLanes / 2; n > 0; n /= 2) {
    for (int i = 0; i < n; ++i) lanes[i] = lanes[i] < lanes[i + n] ? lanes[i] : lanes[i + n];
  }
  return lanes[0];
}
#elif TW_LEVEL >= TW_LEVEL_avx512
TW_INLINE float highest(VF v) { return _mm512_reduce_max_ps(v); }
TW_INLINE float lowest(VF v) { return _mm512_reduce_min_ps(v); }
TW_INLINE VF lower(VF a, VF b) { return _mm512_min_ps(a, b); }
TW_INLINE VF higher(VF a, VF b) { return _mm512_max_ps(a, b); }
TW_INLINE VF magnitude(VF a) { return _mm512_abs_ps(a); }
TW_INLINE VF minus(VF a, VF b) { return _mm512_sub_ps(a, b); }
TW_INLINE VF over(VF a, VF b) { return _mm512_div_ps(a, b); }
constexpr bool kHasWordMax = true;
TW_INLINE VI larger_words(VI a, VI b) { return _mm512_max_epu16(a, b); }
TW_INLINE VF larger_magnitude(VF a, VF b) { return _mm512_range_ps(a, b, 0x0b); }
TW_INLINE uint16_t half_bits(float a) { return _cvtss_sh(a, _MM_FROUND_TO_NEAREST_INT); }
TW_INLINE float half_value(uint16_t a) { return _cvtsh_ss(a); }
TW_INLINE VF one_where_zero(VF a) {
  return _mm512_mask_mov_ps(a, _mm512_cmp_ps_mask(a, _mm512_setzero_ps(), _CMP_EQ_OQ), _mm512_set1_ps(1.0f));
}
TW_INLINE VI rounded(VF a) { return _mm512_cvtps_epi32(a); }
template <int N>
TW_INLINE VI shifted(VI a) {
  return _mm512_slli_epi32(a, N);
}
TW_INLINE VI either(VI a, VI b) { return _mm512_or_si512(a, b); }
TW_INLINE VI both(VI a, VI b) { return _mm512_and_si512(a, b); }
template <int N>
TW_INLINE VI shifted_down(VI a) {
  return _mm512_srai_epi32(a, N);
}
TW_INLINE VI shifted_down_by(VI a, int n) { return _mm512_sra_epi32(a, _mm_cvtsi32_si128(n)); }
TW_INLINE VI as_bits(VF a) { return _mm512_castps_si512(a); }
TW_INLINE VF as_float(VI a) { return _mm512_castsi512_ps(a); }
TW_INLINE VI load_bytes(const int8_t* from) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
TW_INLINE VI load_words(const int16_t* from) {
  return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
TW_INLINE void store_bytes(int8_t* to, VI a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(a));
}
// Four vectors as bytes within +-127: packing saturates, so only what rounds to no integer is limited before,
// and nothing where `kLimited` says that none is so large.
template <bool kLimited = false>
TW_INLINE void store_four(int8_t* to, VF a, VF b, VF c, VF d) {
  const auto code = [](VF v) { return rounded(kLimited ? v : lower(v, _mm512_set1_ps(127.0f))); };
  const VI ab = _mm512_packs_epi32(code(a), code(b)), cd = _mm512_packs_epi32(code(c), code(d));
  const VI order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const VI bytes = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(ab, cd));
  _mm512_storeu_si512(to, _mm512_max_epi8(bytes, _mm512_set1_epi8(-127)));
}
// The same of even and odd elements of two vectors of words.
constexpr bool kHasSplitCodes = true;
template <bool kLimited>
TW_INLINE void store_four_split(int8_t* to, VF even, VF odd, VF next_even, VF next_odd) {
  const auto code = [](VF v) { return rounded(kLimited ? v : lower(v, _mm512_set1_ps(127.0f))); };
  const VI first = _mm512_packs_epi32(code(even), code(odd));
  const VI second = _mm512_packs_epi32(code(next_even), code(next_odd));
  const VI pairs = _mm512_set4_epi32(0x0f0b0e0a, 0x0d090c08, 0x07030602, 0x05010400);
  const VI eights = _mm512_shuffle_epi8(_mm512_packs_epi16(first, second), pairs);
  const VI bytes = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), eights);
  _mm512_storeu_si512(to, _mm512_max_epi8(bytes, _mm512_set1_epi8(-127)));
}
TW_INLINE void store_words(int16_t* to, VI a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(a));
}
#else
TW_INLINE float highest(VF v) {
  __m128 half = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  half = _mm_max_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}
TW_INLINE float lowest(VF v) {
  __m128 half = _mm_min_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  half = _mm_min_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_min_ss(half, _mm_movehdup_ps(half)));
}
TW_INLINE VF lower(VF a, VF b) { return _mm256_min_ps(a, b); }
TW_INLINE VF higher(VF a, VF b) { return _mm256_max_ps(a, b); }
TW_INLINE VF magnitude(VF a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
TW_INLINE VF minus(VF a, VF b) { return _mm256_sub_ps(a, b); }
TW_INLINE VF over(VF a, VF b) { return _mm256_div_ps(a, b); }
constexpr bool kHasWordMax = true;
TW_INLINE VI larger_words(VI a, VI b) { return _mm256_max_epu16(a, b); }
TW_INLINE VF larger_magnitude(VF a, VF b) { return higher(a, magnitude(b)); }
TW_INLINE uint16_t half_bits(float a) { return _cvtss_sh(a, _MM_FROUND_TO_NEAREST_INT); }
TW_INLINE float half_value(uint16_t a) { return _cvtsh_ss(a); }
TW_INLINE VF one_where_zero(VF a) {
  return _mm256_blendv_ps(a, _mm256_set1_ps(1.0f), _mm256_cmp_ps(a, _mm256_setzero_ps(), _CMP_EQ_OQ));
}
TW_INLINE VI rounded(VF a) { return _mm256_cvtps_epi32(a); }
template <int N>
TW_INLINE VI shifted(VI a) {
  return _mm256_slli_epi32(a, N);
}
TW_INLINE VI either(VI a, VI b) { return _mm256_or_si256(a, b); }
TW_INLINE VI both(VI a, VI b) { return _mm256_and_si256(a, b); }
template <int N>
TW_INLINE VI shifted_down(VI a) {
  return _mm256_srai_epi32(a, N);
}
TW_INLINE VI shifted_down_by(VI a, int n) { return _mm256_sra_epi32(a, _mm_cvtsi32_si128(n)); }
TW_INLINE VI as_bits(VF a) { return _mm256_castps_si256(a); }
TW_INLINE VF as_float(VI a) { return _mm256_castsi256_ps(a); }
TW_INLINE VI load_bytes(const int8_t* from) {
  return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
}
TW_INLINE VI load_words(const int16_t* from) {
  return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
// The low 16 bits of each lane, in order.
TW_INLINE __m128i words(VI a) {
  const VI low = _mm256_and_si256(a, _mm256_set1_epi32(0xffff));
  return _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
}
TW_INLINE void store_bytes(int8_t* to, VI a) {
  const __m128i bytes = _mm_and_si128(words(a), _mm_set1_epi16(0xff));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packus_epi16(bytes, bytes));
}
// Four vectors as bytes within +-127: packing saturates, so only what rounds to no integer is limited before,
// and nothing where `kLimited` says that none is so large.
template <bool kLimited = false>
TW_INLINE void store_four(int8_t* to, VF a, VF b, VF c, VF d) {
  const auto code = [](VF v) { return rounded(kLimited ? v : lower(v, _mm256_set1_ps(127.0f))); };
  const VI ab = _mm256_packs_epi32(code(a), code(b)), cd = _mm256_packs_epi32(code(c), code(d));
  const VI order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const VI bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(ab, cd), order);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_max_epi8(bytes, _mm256_set1_epi8(-127)));
}
// The same of even and odd elements of two vectors of words.
constexpr bool kHasSplitCodes = true;
template <bool kLimited>
TW_INLINE void store_four_split(int8_t* to, VF even, VF odd, VF next_even, VF next_odd) {
  const auto code = [](VF v) { return rounded(kLimited ? v : lower(v, _mm256_set1_ps(127.0f))); };
  const VI first = _mm256_packs_epi32(code(even), code(odd));
  const VI second = _mm256_packs_epi32(code(next_even), code(next_odd));
  const VI pairs = _mm256_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15,  //
                                    0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
  const VI eights = _mm256_shuffle_epi8(_mm256_packs_epi16(first, second), pairs);
  const VI bytes = _mm256_permute4x64_epi64(eights, 0xd8);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_max_epi8(bytes, _mm256_set1_epi8(-127)));
}
TW_INLINE void store_words(int16_t* to, VI a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(to), words(a)); }
#endif

// Nibble j of each word as a number: 0..15, or -8..7 when kSigned.
template <bool kSigned>
TW_INLINE VF nibble_values(VI words, int j) {
  const VI down = shifted_down_by(words, 4 * j);
  return to_float(kSigned ? shifted_down<28>(shifted<28>(down)) : both(down, bcast_i(15)));
}
// Nibble j of each word as E3M0: the sign, and 2 to the power of exponent - 7.
TW_INLINE VF e3m0_values(VI words, int j) {
  const VI nibble = both(shifted_down_by(words, 4 * j), bcast_i(15));
  const VI exponent = shifted<23>(add(both(nibble, bcast_i(7)), bcast_i(120)));
  return as_float(either(exponent, shifted<28>(both(nibble, bcast_i(8)))));
}

}  // namespace
}  // namespace tw::TW_ISA
