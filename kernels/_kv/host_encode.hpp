// Encoders of the formats in formats.py, on rows of fp32; compiled once per instruction level. Every
// operation rounds once and none is contracted, so codes are the same bits at every level.
//
// Rows have kSlack elements of room behind their `d` elements; what stands there is of the row itself or of
// no account.
#pragma once

#include <cstdint>
#include <cstring>

#include "_host/simd/simd.hpp"

namespace tw::TW_ISA {
namespace {

constexpr int64_t kSlack = 32;
constexpr float kTiny = 0x1p-126f;  // the smallest normal number: a reciprocal of less overflows

[[maybe_unused]] TW_INLINE int64_t padded(int64_t d) { return (d + kLanes - 1) / kLanes * kLanes; }

#if defined(TW_EMULATE) || TW_LEVEL == TW_LEVEL_scalar
TW_INLINE VF lower(VF a, VF b) { return a < b ? a : b; }
TW_INLINE VF higher(VF a, VF b) { return a > b ? a : b; }
TW_INLINE VF magnitude(VF a) { return (VF)((VI)a & 0x7fffffffu); }
TW_INLINE VF minus(VF a, VF b) { return a - b; }
TW_INLINE VF over(VF a, VF b) { return a / b; }
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
TW_INLINE void store_words(int16_t* to, VI a) {
  for (int i = 0; i < kLanes; ++i) to[i] = static_cast<int16_t>(a[i]);
}
#elif TW_LEVEL >= TW_LEVEL_avx512
TW_INLINE VF lower(VF a, VF b) { return _mm512_min_ps(a, b); }
TW_INLINE VF higher(VF a, VF b) { return _mm512_max_ps(a, b); }
TW_INLINE VF magnitude(VF a) { return _mm512_abs_ps(a); }
TW_INLINE VF minus(VF a, VF b) { return _mm512_sub_ps(a, b); }
TW_INLINE VF over(VF a, VF b) { return _mm512_div_ps(a, b); }
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
TW_INLINE void store_words(int16_t* to, VI a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(a));
}
#else
TW_INLINE VF lower(VF a, VF b) { return _mm256_min_ps(a, b); }
TW_INLINE VF higher(VF a, VF b) { return _mm256_max_ps(a, b); }
TW_INLINE VF magnitude(VF a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
TW_INLINE VF minus(VF a, VF b) { return _mm256_sub_ps(a, b); }
TW_INLINE VF over(VF a, VF b) { return _mm256_div_ps(a, b); }
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
TW_INLINE void store_words(int16_t* to, VI a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(to), words(a)); }
#endif

TW_INLINE float highest(VF v) {
  float lanes[kLanes], found;
  store(lanes, v);
  found = lanes[0];
  for (int i = 1; i < kLanes; ++i) found = lanes[i] > found ? lanes[i] : found;
  return found;
}
TW_INLINE float lowest(VF v) {
  float lanes[kLanes], found;
  store(lanes, v);
  found = lanes[0];
  for (int i = 1; i < kLanes; ++i) found = lanes[i] < found ? lanes[i] : found;
  return found;
}

// Element types of rows, as tw_dtype numbers them.
enum Element : int32_t { kRowF32 = 0, kRowBF16 = 1, kRowF16 = 2 };

TW_INLINE float widened(const char* at, int32_t element) {
  if (element == kRowF32) {
    float value;
    __builtin_memcpy(&value, at, 4);
    return value;
  }
  uint16_t bits;
  __builtin_memcpy(&bits, at, 2);
  return element == kRowBF16 ? bf16_to_float(bits) : fp16_to_float(bits);
}

// `d` elements, `lane` bytes apart, as fp32; the slack up to whole vectors repeats the first.
[[maybe_unused]] void widen_row(const char* from, int64_t lane, int32_t element, int64_t d, float* to) {
  int64_t i = 0;
  if (element == kRowF32 && lane == 4) {
    for (; i + kLanes <= d; i += kLanes) store(to + i, load(reinterpret_cast<const float*>(from) + i));
  } else if (element == kRowBF16 && lane == 2) {
    for (; i + kLanes <= d; i += kLanes)
      store(to + i, load_bf16(reinterpret_cast<const uint16_t*>(from) + i));
  } else if (element == kRowF16 && lane == 2) {
    for (; i + kLanes <= d; i += kLanes)
      store(to + i, load_fp16(reinterpret_cast<const uint16_t*>(from) + i));
  }
  for (; i < d; ++i) to[i] = widened(from + i * lane, element);
  for (; i < padded(d); ++i) to[i] = to[0];
}

// How a row's elements become numbers to be rounded: (x - zero) * r, each per channel (pointers) or for the
// whole row. Without a zero, only the product.
struct PerChannel {
  const float* r;
  const float* zero = nullptr;
  TW_BODY VF scaled(VF x, int64_t i) const {
    return mul(zero == nullptr ? x : minus(x, load(zero + i)), load(r + i));
  }
};
struct PerRow {
  explicit PerRow(float factor) : r(bcast(factor)) {}
  VF r;
  TW_BODY VF scaled(VF x, int64_t) const { return mul(x, r); }
};
struct PerRowFrom {
  PerRowFrom(float factor, float start) : r(bcast(factor)), zero(bcast(start)) {}
  VF r, zero;
  TW_BODY VF scaled(VF x, int64_t) const { return mul(minus(x, zero), r); }
};

TW_INLINE VI rounded_within(VF v, float low, float high) {
  return rounded(lower(higher(v, bcast(low)), bcast(high)));
}

// Codes of c8s and c8d: `to` has room for padded(d) bytes.
template <class Scaling>
TW_INLINE void codes8(const float* row, int64_t d, const Scaling& scaling, int8_t* to) {
  for (int64_t i = 0; i < d; i += kLanes) {
    store_bytes(to + i, rounded_within(scaling.scaled(load(row + i), i), -127.0f, 127.0f));
  }
}

// Codes of kv4, four to a lane: `to` has room for padded(d / 4) lanes, `row` (and what scales it by channel)
// for a vector behind its end.
template <class Scaling>
TW_INLINE void codes4(const float* row, int64_t d, const Scaling& scaling, int16_t* to) {
  const int64_t quarter = d / 4;
  for (int64_t i = 0; i < quarter; i += kLanes) {
    VI q[4];
    for (int j = 0; j < 4; ++j) {
      const int64_t at = j * quarter + i;
      q[j] = rounded_within(scaling.scaled(load(row + at), at), 0.0f, 15.0f);
    }
    store_words(to + i, either(either(q[0], shifted<4>(q[1])), either(shifted<8>(q[2]), shifted<12>(q[3]))));
  }
}

// Nibbles as numbers times `factor`: 0..15, or -8..7 when kSigned. `to` has room for a vector behind `d`
// elements.
template <bool kSigned>
TW_INLINE void nibbles_to_floats(const int16_t* from, int64_t d, float* to, float factor) {
  const int64_t quarter = d / 4;
  const VF by = bcast(factor);
  // A quarter's last vector runs into the next one, which is written after it.
  for (int j = 0; j < 4; ++j) {
    for (int64_t i = 0; i < quarter; i += kLanes) {
      const VI word = load_words(from + i);
      const VI nibble = kSigned ? shifted_down<28>(shifted<28>(shifted_down_by(word, 4 * j)))
                                : both(shifted_down_by(word, 4 * j), bcast_i(15));
      store(to + j * quarter + i, mul(to_float(nibble), by));
    }
  }
}

// The scale of a c8d vector.
TW_INLINE float token_scale8(const float* row, int64_t d) {
  VF most = zero_f();
  for (int64_t i = 0; i < d; i += kLanes) most = higher(magnitude(load(row + i)), most);
  const float scale = highest(most) * (1.0f / 127.0f);
  return scale < kTiny ? 1.0f : scale;
}

// Scale and zero of a kv4 value, as they are stored.
struct Range4 {
  uint16_t scale, zero;
};

constexpr uint16_t kHalfOne = 0x3c00;

TW_INLINE Range4 token_range4(const float* row, int64_t d) {
  if (d == 0) return {kHalfOne, 0};
  VF low = load(row), high = low;
  for (int64_t i = kLanes; i < d; i += kLanes) {
    const VF x = load(row + i);
    low = lower(x, low);
    high = higher(x, high);
  }
  const float least = lowest(low);
  const uint16_t scale = float_to_fp16((highest(high) - least) * (1.0f / 15.0f));
  return {static_cast<uint16_t>((scale & 0x7fff) == 0 ? kHalfOne : scale), float_to_fp16(least)};
}

// Scales and zeros of kv4 keys over `count` rows, `pitch` elements apart: as they are stored (padded(d) fp16
// each) and as the encoder uses them.
struct KeyRange4 {
  uint16_t *scale, *zero;
  float *r, *from;
};

[[maybe_unused]] void page_range4(const float* rows, int64_t pitch, int64_t count, int64_t d,
                                  const KeyRange4& to) {
  for (int64_t i = 0; i < d; i += kLanes) {
    VF low = load(rows + i), high = low;
    for (int64_t t = 1; t < count; ++t) {
      const VF x = load(rows + t * pitch + i);
      low = lower(x, low);
      high = higher(x, high);
    }
    store_fp16(to.zero + i, low);
    store_fp16(to.scale + i, mul(minus(high, low), bcast(1.0f / 15.0f)));
    for (int64_t c = i; c < i + kLanes; ++c) {
      if ((to.scale[c] & 0x7fff) == 0) to.scale[c] = kHalfOne;
    }
    store(to.from + i, load_fp16(to.zero + i));
    store(to.r + i, over(bcast(1.0f), load_fp16(to.scale + i)));
  }
}

}  // namespace
}  // namespace tw::TW_ISA
