// Element types of rows as vectors of fp32; compiled once per instruction level.
#pragma once

#include <cstdint>

#include "_host/half.hpp"
#include "_host/simd/math.hpp"

namespace tw::TW_ISA {
namespace {

struct F32 {
  using Element = float;
  TW_INLINE VF load(const float* p) { return tw::TW_ISA::load(p); }
  TW_INLINE void store(float* p, VF v) { tw::TW_ISA::store(p, v); }
  static float widen(float v) { return v; }
  static float narrow(float v) { return v; }
};
struct BF16 {
  using Element = uint16_t;
  TW_INLINE VF load(const uint16_t* p) { return load_bf16(p); }
  TW_INLINE void store(uint16_t* p, VF v) { store_bf16(p, v); }
  static float widen(uint16_t v) { return bf16_to_float(v); }
  static uint16_t narrow(float v) { return float_to_bf16(v); }
};
struct F16 {
  using Element = uint16_t;
  TW_INLINE VF load(const uint16_t* p) { return load_fp16(p); }
  TW_INLINE void store(uint16_t* p, VF v) { store_fp16(p, v); }
  static float widen(uint16_t v) { return fp16_to_float(v); }
  static uint16_t narrow(float v) { return float_to_fp16(v); }
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

}  // namespace
}  // namespace tw::TW_ISA
