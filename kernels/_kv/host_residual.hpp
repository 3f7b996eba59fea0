// Residual codes of formats.py, on rows of fp32; compiled once per instruction level.
//
// A scaling says what a vector's codes stand for: scaled(x, i) is what is rounded, value(q, i) what a code
// stands for, `low` and `high` the base codes, `most` the largest nested code.
#pragma once

#include "_kv/host_encode.hpp"

namespace tw::TW_ISA {
namespace {

struct Bytes8 {
  static constexpr float kLow = -127.0f, kHigh = 127.0f, kNestedLow = -2040.0f, kNestedHigh = 2039.0f;
};
struct Nibbles4 {
  static constexpr float kLow = 0.0f, kHigh = 15.0f, kNestedLow = 0.0f, kNestedHigh = 247.0f;
};

// c8s: a scale a channel.
struct StaticBytes : Bytes8 {
  const float *r, *scale;
  TW_BODY VF scaled(VF x, int64_t i) const { return mul(x, load(r + i)); }
  TW_BODY VF value(VF q, int64_t i) const { return mul(load(scale + i), q); }
};
// c8d: a scale a vector.
struct TokenBytes : Bytes8 {
  VF r, scale;
  TW_BODY VF scaled(VF x, int64_t) const { return mul(x, r); }
  TW_BODY VF value(VF q, int64_t) const { return mul(scale, q); }
};
// kv4 keys: a scale and a zero a channel.
struct PageNibbles : Nibbles4 {
  const float *r, *scale, *zero;
  TW_BODY VF scaled(VF x, int64_t i) const { return mul(minus(x, load(zero + i)), load(r + i)); }
  TW_BODY VF value(VF q, int64_t i) const { return add(load(zero + i), mul(load(scale + i), q)); }
};
// kv4 values: a scale and a zero a vector.
struct TokenNibbles : Nibbles4 {
  VF r, scale, zero;
  TW_BODY VF scaled(VF x, int64_t) const { return mul(minus(x, zero), r); }
  TW_BODY VF value(VF q, int64_t) const { return add(zero, mul(scale, q)); }
};

template <class S>
TW_INLINE VI base_code(const S& s, VF x, int64_t i) {
  return rounded_within(s.scaled(x, i), S::kLow, S::kHigh);
}
// The code at 16 times the resolution: scaling by 16 is exact.
template <class S>
TW_INLINE VI nested_code(const S& s, VF x, int64_t i) {
  return rounded_within(mul(bcast(16.0f), s.scaled(x, i)), S::kNestedLow, S::kNestedHigh);
}
TW_INLINE VI base_of_nested(VI c) { return shifted_down<4>(add(c, bcast_i(8))); }
// n = c - 16 q in -8..7, of which 4 bits are kept: the low ones of c itself.
TW_INLINE VI nibble_of_nested(VI c) { return both(c, bcast_i(15)); }

// nibble(at) for channels at... of four quarters, packed into lanes; `to` has room for padded(d / 4).
template <class Nibble>
TW_INLINE void pack_quarters(int64_t d, int16_t* to, const Nibble& nibble) {
  const int64_t quarter = d / 4;
  for (int64_t i = 0; i < quarter; i += kLanes) {
    const VI a = nibble(i), b = nibble(quarter + i), c = nibble(2 * quarter + i), e = nibble(3 * quarter + i);
    store_words(to + i, either(either(a, shifted<4>(b)), either(shifted<8>(c), shifted<12>(e))));
  }
}

// Base codes of a vector, as they are stored: bytes, or nibbles packed.
template <class S, class Code>
TW_INLINE void store_codes(int64_t d, char* to, const Code& code) {
  if constexpr (S::kLow < 0) {
    for (int64_t i = 0; i < d; i += kLanes) store_bytes(reinterpret_cast<int8_t*>(to) + i, code(i));
  } else {
    pack_quarters(d, reinterpret_cast<int16_t*>(to), code);
  }
}

template <class S>
TW_INLINE void plain_codes(const float* row, int64_t d, const S& s, char* to) {
  store_codes<S>(d, to, [&](int64_t i) TW_BODY { return base_code(s, load(row + i), i); });
}

// Base codes to `to`, the nested ones' low halves to `pool`.
template <class S>
TW_INLINE void nested_codes(const float* row, int64_t d, const S& s, char* to, int16_t* pool) {
  store_codes<S>(d, to, [&](int64_t i) TW_BODY { return base_of_nested(nested_code(s, load(row + i), i)); });
  pack_quarters(d, pool,
                [&](int64_t i) TW_BODY { return nibble_of_nested(nested_code(s, load(row + i), i)); });
}

// The exponent of |e| * r, rounded to the nearest power of two, and the sign above it.
TW_INLINE VI e3m0_nibble(VF error, VF r) {
  const VI bits = as_bits(mul(magnitude(error), r));
  const VI exponent = shifted_down<23>(add(bits, bcast_i(0x400000u)));
  const VF within = lower(higher(to_float(add(exponent, bcast_i(0u - 120u))), zero_f()), bcast(7.0f));
  return either(rounded(within), both(shifted_down<28>(as_bits(error)), bcast_i(8)));
}

// Codes of the error that base codes leave to `pool`; returns its scale. `error` is a row of its own.
template <class S>
TW_INLINE float e3m0_codes(const float* row, int64_t d, const S& s, float* error, int16_t* pool) {
  VF most = zero_f();
  for (int64_t i = 0; i < d; i += kLanes) {
    const VF x = load(row + i);
    const VF e = minus(x, s.value(to_float(base_code(s, x, i)), i));
    store(error + i, e);
    if (i + kLanes <= d) {
      most = higher(magnitude(e), most);
    }
  }
  float scale = highest(most);
  for (int64_t i = d / kLanes * kLanes; i < d; ++i) {
    const float e = __builtin_fabsf(error[i]);
    scale = e > scale ? e : scale;
  }
  const VF r = bcast(1.0f / (scale < kTiny ? 1.0f : scale));
  pack_quarters(d, pool, [&](int64_t i) TW_BODY { return e3m0_nibble(load(error + i), r); });
  return scale;
}

// Base codes as numbers; `to` has room for a vector behind `d` elements, `from` for one of bytes.
template <class S>
TW_INLINE void codes_to_floats(const char* from, int64_t d, float* to) {
  if constexpr (S::kLow < 0) {
    const auto* bytes = reinterpret_cast<const int8_t*>(from);
    for (int64_t i = 0; i < d; i += kLanes) store(to + i, to_float(load_bytes(bytes + i)));
  } else {
    nibbles_to_floats<false>(reinterpret_cast<const int16_t*>(from), d, to, 1.0f);
  }
}

// row = value(row): what base codes (with nested residuals added) stand for.
template <class S>
TW_INLINE void dequantise(float* row, int64_t d, const S& s) {
  for (int64_t i = 0; i < d; i += kLanes) store(row + i, s.value(load(row + i), i));
}

TW_INLINE void add_row(float* row, const float* other, int64_t d) {
  for (int64_t i = 0; i < d; i += kLanes) store(row + i, add(load(row + i), load(other + i)));
}

// Nibbles of E3M0 as numbers.
[[maybe_unused]] void e3m0_to_floats(const int16_t* from, int64_t d, float scale, float* to) {
  const int64_t quarter = d / 4;
  const VF factor = bcast(scale);
  for (int j = 0; j < 4; ++j) {
    for (int64_t i = 0; i < quarter; i += kLanes) {
      store(to + j * quarter + i, mul(e3m0_values(load_words(from + i), j), factor));
    }
  }
}

// A row to `d` elements, `lane` bytes apart, rounded to the element type.
[[maybe_unused]] void narrow_row(const float* row, int64_t d, int32_t element, char* to, int64_t lane) {
  int64_t i = 0;
  if (element == kRowF32 && lane == 4 && d > 0) {
    std::memcpy(to, row, static_cast<size_t>(d) * 4);
    return;
  }
  if (element == kRowBF16 && lane == 2) {
    for (; i + kLanes <= d; i += kLanes) store_bf16(reinterpret_cast<uint16_t*>(to) + i, load(row + i));
  } else if (element == kRowF16 && lane == 2) {
    for (; i + kLanes <= d; i += kLanes) store_fp16(reinterpret_cast<uint16_t*>(to) + i, load(row + i));
  }
  for (; i < d; ++i) {
    if (element == kRowF32) {
      __builtin_memcpy(to + i * lane, row + i, 4);
      continue;
    }
    const uint16_t bits = element == kRowBF16 ? float_to_bf16(row[i]) : float_to_fp16(row[i]);
    __builtin_memcpy(to + i * lane, &bits, 2);
  }
}

}  // namespace
}  // namespace tw::TW_ISA
