// Element types of rows as vectors of fp32; compiled once per instruction level.
//
// Rows are walked two vectors at a time. Of 16-bit elements that lie side by side one word holds an even and
// an odd one, so that bf16 widens with a shift and a mask where whole vectors would be spread first: with
// kSplit a pair is the even elements and the odd ones, otherwise the first half and the second.
#pragma once

#include <cstdint>
#include <type_traits>

#include "_host/half.hpp"
#include "_host/simd/math.hpp"

namespace tw::TW_ISA {
namespace {

struct Pair {
  VF a, b;
};

constexpr int kPair = 2 * kLanes;

// Rounding to nearest even; NaNs are those that arithmetic on bf16 makes: their lower halves are 0, so that
// rounding leaves them alone.
#if defined(TW_EMULATE) || TW_LEVEL == TW_LEVEL_scalar
constexpr bool kSplitBF16 = false;
TW_INLINE void store_split_bf16(uint16_t*, Pair) {}
TW_INLINE void stream_split_bf16(uint16_t*, Pair) {}
TW_INLINE void stream(float* p, VF v) { store(p, v); }
TW_INLINE void stream_fp16(uint16_t* p, VF v) { store_fp16(p, v); }
TW_INLINE void streamed() {}
#elif TW_LEVEL >= TW_LEVEL_avx512
constexpr bool kSplitBF16 = true;

// v + 0x7fff + bit 16 of v: one product of words adds both.
TW_INLINE __m512i rounded_up_bf16(VF v) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i adds =
      _mm512_ternarylogic_epi32(bits, _mm512_set1_epi32(0x10000), _mm512_set1_epi32(0x7fff), 0xea);
  return _mm512_dpwssd_epi32(bits, adds, _mm512_set1_epi32(0x00010001));
}
TW_INLINE __m512i joined_bf16(Pair v) {
  const __m512i even = _mm512_srli_epi32(rounded_up_bf16(v.a), 16);
  return _mm512_ternarylogic_epi32(even, rounded_up_bf16(v.b),
                                   _mm512_set1_epi32(static_cast<int>(0xffff0000u)), 0xf8);
}
TW_INLINE void store_split_bf16(uint16_t* p, Pair v) { _mm512_storeu_si512(p, joined_bf16(v)); }
TW_INLINE void stream_split_bf16(uint16_t* p, Pair v) {
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), joined_bf16(v));
}
TW_INLINE void stream(float* p, VF v) { _mm512_stream_ps(p, v); }
TW_INLINE void stream_fp16(uint16_t* p, VF v) {
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
TW_INLINE void streamed() { _mm_sfence(); }
#else
constexpr bool kSplitBF16 = true;

TW_INLINE __m256i rounded_up_bf16(VF v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i adds =
      _mm256_or_si256(_mm256_and_si256(bits, _mm256_set1_epi32(0x10000)), _mm256_set1_epi32(0x7fff));
  return _mm256_add_epi32(bits, _mm256_madd_epi16(adds, _mm256_set1_epi32(0x00010001)));
}
TW_INLINE __m256i joined_bf16(Pair v) {
  const __m256i even = _mm256_srli_epi32(rounded_up_bf16(v.a), 16);
  return _mm256_blend_epi16(even, rounded_up_bf16(v.b), 0xaa);
}
TW_INLINE void store_split_bf16(uint16_t* p, Pair v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), joined_bf16(v));
}
TW_INLINE void stream_split_bf16(uint16_t* p, Pair v) {
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), joined_bf16(v));
}
TW_INLINE void stream(float* p, VF v) { _mm256_stream_ps(p, v); }
TW_INLINE void stream_fp16(uint16_t* p, VF v) {
  _mm_stream_si128(reinterpret_cast<__m128i*>(p),
                   _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
TW_INLINE void streamed() { _mm_sfence(); }
#endif

struct F32 {
  using Element = float;
  static constexpr bool kSplit = false;
  // Whether fma adds the same as a product and a sum do, as of elements whose products are exact.
  static constexpr bool kExactProducts = false;
  TW_INLINE VF load(const float* p) { return tw::TW_ISA::load(p); }
  TW_INLINE void store(float* p, VF v) { tw::TW_ISA::store(p, v); }
  TW_INLINE Pair load_pair(const float* p) { return {load(p), load(p + kLanes)}; }
  TW_INLINE void store_pair(float* p, Pair v) {
    store(p, v.a);
    store(p + kLanes, v.b);
  }
  static float widen(float v) { return v; }
  static float narrow(float v) { return v; }
};
struct BF16 {
  using Element = uint16_t;
  static constexpr bool kSplit = kSplitBF16;
  static constexpr bool kExactProducts = false;  // but for those below 2^-126
  TW_INLINE VF load(const uint16_t* p) { return load_bf16(p); }
  TW_INLINE void store(uint16_t* p, VF v) { store_bf16(p, v); }
  TW_INLINE Pair load_pair(const uint16_t* p) {
    if constexpr (kSplit) {
      const VI words = load_i(p);
      return {bf16_even(words), bf16_odd(words)};
    } else {
      return {load(p), load(p + kLanes)};
    }
  }
  // Of results of arithmetic on bf16.
  TW_INLINE void store_pair(uint16_t* p, Pair v) {
    if constexpr (kSplit) {
      store_split_bf16(p, v);
    } else {
      store(p, v.a);
      store(p + kLanes, v.b);
    }
  }
  static float widen(uint16_t v) { return bf16_to_float(v); }
  static uint16_t narrow(float v) { return float_to_bf16(v); }
};
struct F16 {
  using Element = uint16_t;
  static constexpr bool kSplit = false;
  static constexpr bool kExactProducts = true;
  TW_INLINE VF load(const uint16_t* p) { return load_fp16(p); }
  TW_INLINE void store(uint16_t* p, VF v) { store_fp16(p, v); }
  TW_INLINE Pair load_pair(const uint16_t* p) { return {load(p), load(p + kLanes)}; }
  TW_INLINE void store_pair(uint16_t* p, Pair v) {
    store(p, v.a);
    store(p + kLanes, v.b);
  }
  static float widen(uint16_t v) { return fp16_to_float(v); }
  static uint16_t narrow(float v) { return float_to_fp16(v); }
};

// Pairs stored past the caches, at addresses that are multiples of 64 bytes; `streamed` ends them. Where the
// element type has no such store, as any other.
template <class E>
struct Past : E {
  TW_INLINE void store_pair(typename E::Element* p, Pair v) {
    if constexpr (std::is_same_v<E, F32>) {
      stream(p, v.a);
      stream(p + kLanes, v.b);
    } else if constexpr (std::is_same_v<E, F16>) {
      stream_fp16(p, v.a);
      stream_fp16(p + kLanes, v.b);
    } else if constexpr (E::kSplit) {
      stream_split_bf16(p, v);
    } else {
      E::store_pair(p, v);
    }
  }
};

// The first `count` elements of a vector, the other lanes 0; and the first `count` lanes written.
template <class E>
TW_INLINE VF load_some(const typename E::Element* p, int64_t count) {
  typename E::Element room[kLanes] = {};
  __builtin_memcpy(room, p, static_cast<size_t>(count) * sizeof(typename E::Element));
  return E::load(room);
}
template <class E>
TW_INLINE void store_some(typename E::Element* p, VF v, int64_t count) {
  typename E::Element room[kLanes];
  E::store(room, v);
  __builtin_memcpy(p, room, static_cast<size_t>(count) * sizeof(typename E::Element));
}

// The same of pairs.
template <class E>
TW_INLINE Pair load_some_pair(const typename E::Element* p, int64_t count) {
  typename E::Element room[kPair] = {};
  __builtin_memcpy(room, p, static_cast<size_t>(count) * sizeof(typename E::Element));
  return E::load_pair(room);
}
template <class E>
TW_INLINE void store_some_pair(typename E::Element* p, Pair v, int64_t count) {
  typename E::Element room[kPair];
  E::store_pair(room, v);
  __builtin_memcpy(p, room, static_cast<size_t>(count) * sizeof(typename E::Element));
}

}  // namespace
}  // namespace tw::TW_ISA
