// Keywords of the language extension and its 16-bit floats.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#ifndef __NPU_ARCH__
#define __NPU_ARCH__ 2201
#endif
#define __aicore__
#define __gm__
#define __ubuf__
#define __cbuf__
#define __ca__
#define __cb__
#define __cc__
#define __fbuf__
#ifdef TILEWRIGHT_LIST_KERNELS  // the runner of kernel files looks for these words
#define __global__ __tw_global__
#define __vector__ __tw_mix__(0, 1)
#define __cube__ __tw_mix__(1, 0)
#define __mix__(cubes, vectors) __tw_mix__(cubes, vectors)
#else
#define GM_ADDR uint8_t*
#define __global__ __attribute__((visibility("default")))
#define __vector__
#define __cube__
#define __mix__(cubes, vectors)
#endif
#ifndef likely
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#endif
#ifndef __forceinline__
#define __forceinline__ inline
#endif

namespace tilewright::twin {

template <class To, class From>
inline To BitCast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// IEEE binary16, round to nearest even; overflow gives infinity.
inline uint16_t FloatToHalf(float value) {
  const uint32_t bits = BitCast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>(bits >> 16) & 0x8000;
  const uint32_t mag = bits & 0x7fffffff;
  if (mag > 0x7f800000) return sign | 0x7e00;
  if (mag >= 0x477ff000) return sign | 0x7c00;  // rounds to 65536 or more
  if (mag < 0x38800000) {
    // Adding 0.5 lines the mantissa up with half's denormals, so the hardware's rounding is the one wanted.
    const float shifted = BitCast<float>(mag) + 0.5f;
    return sign | static_cast<uint16_t>(BitCast<uint32_t>(shifted) - 0x3f000000);
  }
  return sign | static_cast<uint16_t>((mag - 0x38000000 + 0xfff + ((mag >> 13) & 1)) >> 13);
}

inline float HalfToFloat(uint16_t h) {
  const uint32_t mag = static_cast<uint32_t>(h & 0x7fff) << 13;
  float f = BitCast<float>(mag) * BitCast<float>(0x77800000u);  // 2^112: rebias, denormals included
  uint32_t bits = BitCast<uint32_t>(f);
  if ((h & 0x7c00) == 0x7c00) bits = mag | 0x7f800000;
  return BitCast<float>(bits | (static_cast<uint32_t>(h & 0x8000) << 16));
}

inline uint16_t FloatToBf16(float value) {
  const uint32_t bits = BitCast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16) | 0x40;
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float Bf16ToFloat(uint16_t b) { return BitCast<float>(static_cast<uint32_t>(b) << 16); }

}  // namespace tilewright::twin

struct half {
  uint16_t bits;
  half() = default;
  half(float value) : bits(tilewright::twin::FloatToHalf(value)) {}
  operator float() const { return tilewright::twin::HalfToFloat(bits); }
};
using float16_t = half;

struct bfloat16_t {
  uint16_t bits;
  bfloat16_t() = default;
  explicit bfloat16_t(float value) : bits(tilewright::twin::FloatToBf16(value)) {}
  operator float() const { return tilewright::twin::Bf16ToFloat(bits); }
};
// Four bits, signed; tensors hold two in a byte, the first in the low half.
struct int4b_t {
  uint8_t bits;
};
static_assert(sizeof(half) == 2 && sizeof(bfloat16_t) == 2);
