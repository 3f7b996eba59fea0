// Encoders of the formats in formats.py, on rows of fp32; compiled once per instruction level. Every
// operation rounds once and none is contracted, so codes are the same bits at every level.
//
// Rows have kSlack elements of room behind their `d` elements; what stands there is of the row itself or of
// no account.
#pragma once

#include <cstdint>
#include <cstring>

#include "_kv/host_lanes.hpp"

namespace tw::TW_ISA {
namespace {

constexpr int64_t kSlack = 32;
constexpr float kTiny = 0x1p-126f;  // the smallest normal number: a reciprocal of less overflows

[[maybe_unused]] TW_INLINE int64_t padded(int64_t d) { return (d + kLanes - 1) / kLanes * kLanes; }

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

// Rows as encoders read them: fp32 that were widened before, or elements as they lie.
struct Widened {
  static constexpr bool kHalves = false, kSplits = false;
  const float* row;
  TW_BODY VF at(int64_t i) const { return load(row + i); }
};
template <int32_t E>
struct Raw {
  static constexpr bool kHalves = E != kRowF32;
  // Even and odd elements are had with less than vectors of neighbours.
  static constexpr bool kSplits = E == kRowBF16 && kHasSplitCodes;
  const char* row;
  TW_BODY VI words(int64_t i) const { return load_i(row + 2 * i); }
  TW_BODY VF at(int64_t i) const {
    if constexpr (E == kRowF32) return load(reinterpret_cast<const float*>(row) + i);
    if constexpr (E == kRowBF16) return load_bf16(reinterpret_cast<const uint16_t*>(row) + i);
    if constexpr (E == kRowF16) return load_fp16(reinterpret_cast<const uint16_t*>(row) + i);
  }
};

// How a row's elements become numbers to be rounded: x * r or (x - zero) * r, each per channel (pointers) or
// for the whole row.
struct PerChannel {
  static constexpr bool kLimited = false, kSame = false;
  const float* r;
  TW_BODY VF scaled(VF x, int64_t i) const { return mul(x, load(r + i)); }
};
struct PerChannelFrom {
  const float *r, *zero;
  TW_BODY VF scaled(VF x, int64_t i) const { return mul(minus(x, load(zero + i)), load(r + i)); }
};
struct PerRow {
  static constexpr bool kLimited = false, kSame = true;
  explicit PerRow(float factor) : r(bcast(factor)) {}
  VF r;
  TW_BODY VF scaled(VF x, int64_t) const { return mul(x, r); }
};
// The reciprocal of a row's own scale: no product is above 127 by more than rounding.
struct PerOwnRow : PerRow {
  static constexpr bool kLimited = true;
  using PerRow::PerRow;
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
template <class Row, class Scaling>
TW_INLINE void codes8(const Row& row, int64_t d, const Scaling& scaling, int8_t* to) {
  const auto scaled = [&](int64_t i) TW_BODY { return scaling.scaled(row.at(i), i); };
  constexpr bool kLimited = Scaling::kLimited;
  int64_t i = 0;
  if constexpr (Row::kSplits && Scaling::kSame) {
    for (; i + 4 * kLanes <= d; i += 4 * kLanes) {
      const VI a = row.words(i), b = row.words(i + 2 * kLanes);
      store_four_split<kLimited>(to + i, scaling.scaled(bf16_even(a), i), scaling.scaled(bf16_odd(a), i),
                                 scaling.scaled(bf16_even(b), i), scaling.scaled(bf16_odd(b), i));
    }
  }
  for (; i + 4 * kLanes <= d; i += 4 * kLanes) {
    store_four<kLimited>(to + i, scaled(i), scaled(i + kLanes), scaled(i + 2 * kLanes),
                         scaled(i + 3 * kLanes));
  }
  for (; i < d; i += kLanes) store_bytes(to + i, rounded_within(scaled(i), -127.0f, 127.0f));
}

// Codes of kv4, four to a lane: `to` has room for padded(d / 4) lanes, `row` (and what scales it by channel)
// for a vector behind its end.
template <class Row, class Scaling>
TW_INLINE void codes4(const Row& row, int64_t d, const Scaling& scaling, int16_t* to) {
  const int64_t quarter = d / 4;
  for (int64_t i = 0; i < quarter; i += kLanes) {
    VI q[4];
    for (int j = 0; j < 4; ++j) {
      const int64_t at = j * quarter + i;
      q[j] = rounded_within(scaling.scaled(row.at(at), at), 0.0f, 15.0f);
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
      store(to + j * quarter + i, mul(nibble_values<kSigned>(load_words(from + i), j), by));
    }
  }
}

// The largest magnitude of a row. Without their sign, floats of 16 bits are ordered as their bits are.
// Several maxima at a time, since each waits for the one before.
template <class Row>
TW_INLINE float largest_magnitude(const Row& row, int64_t d) {
  constexpr int kChains = 4;
  if constexpr (Row::kHalves && kHasWordMax) {
    if (d % (2 * kLanes) == 0) {
      VI most[kChains] = {zero_i(), zero_i(), zero_i(), zero_i()};
      const auto take = [&](int c, int64_t i) TW_BODY {
        most[c] = larger_words(most[c], both(load_i(row.row + 2 * i), bcast_i(0x7fff7fffu)));
      };
      int64_t i = 0;
      for (; i + kChains * 2 * kLanes <= d; i += kChains * 2 * kLanes) {
        unrolled<kChains>([&](int c) TW_BODY { take(c, i + c * 2 * kLanes); });
      }
      for (; i < d; i += 2 * kLanes) take(0, i);
      int32_t words[kLanes];
      store(words, larger_words(larger_words(most[0], most[1]), larger_words(most[2], most[3])));
      const Row two{reinterpret_cast<const char*>(words)};
      return highest(higher(two.at(0), two.at(kLanes)));
    }
  }
  VF most[kChains] = {zero_f(), zero_f(), zero_f(), zero_f()};
  int64_t i = 0;
  for (; i + kChains * kLanes <= d; i += kChains * kLanes) {
    unrolled<kChains>([&](int c) TW_BODY { most[c] = larger_magnitude(most[c], row.at(i + c * kLanes)); });
  }
  for (; i < d; i += kLanes) most[0] = larger_magnitude(most[0], row.at(i));
  return highest(higher(higher(most[0], most[1]), higher(most[2], most[3])));
}

// The scale of a c8d vector.
template <class Row>
TW_INLINE float token_scale8(const Row& row, int64_t d) {
  const float scale = largest_magnitude(row, d) * (1.0f / 127.0f);
  return scale < kTiny ? 1.0f : scale;
}

// Scale and zero of a kv4 value, as they are stored.
struct Range4 {
  uint16_t scale, zero;
};

constexpr uint16_t kHalfOne = 0x3c00;

template <class Row>
TW_INLINE Range4 token_range4(const Row& row, int64_t d) {
  if (d == 0) return {kHalfOne, 0};
  VF low = row.at(0), high = low;
  for (int64_t i = kLanes; i < d; i += kLanes) {
    const VF x = row.at(i);
    low = lower(x, low);
    high = higher(x, high);
  }
  const float least = lowest(low);
  const uint16_t scale = half_bits((highest(high) - least) * (1.0f / 15.0f));
  return {static_cast<uint16_t>((scale & 0x7fff) == 0 ? kHalfOne : scale), half_bits(least)};
}

// Scales and zeros of kv4 keys over `count` rows: as they are stored (padded(d) fp16
// each) and as the encoder uses them.
struct KeyRange4 {
  uint16_t *scale, *zero;
  float *r, *from;
};

template <class RowOf>
TW_INLINE void page_range4(const RowOf& row_of, int64_t count, int64_t d, const KeyRange4& to) {
  for (int64_t i = 0; i < d; i += kLanes) {
    VF low = row_of(0).at(i), high = low;
    for (int64_t t = 1; t < count; ++t) {
      const VF x = row_of(t).at(i);
      low = lower(x, low);
      high = higher(x, high);
    }
    store_fp16(to.zero + i, low);
    store_fp16(to.scale + i, mul(minus(high, low), bcast(1.0f / 15.0f)));
    const VF scale = one_where_zero(load_fp16(to.scale + i));
    store_fp16(to.scale + i, scale);
    store(to.from + i, load_fp16(to.zero + i));
    store(to.r + i, over(bcast(1.0f), scale));
  }
}

}  // namespace
}  // namespace tw::TW_ISA
