#include "vector/convert.h"

#include <cmath>

#include "api/enums.h"
#include "api/types.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tilewright::twin {

namespace {

using AscendC::RoundMode;

// Whether the digits kept go up by one, away from zero, given those dropped: the first one (`guard`) and
// whether any other is set (`sticky`).
bool RoundsUp(bool odd, bool guard, bool sticky, bool negative, uint8_t mode) {
  const bool exact = !guard && !sticky;
  switch (static_cast<RoundMode>(mode)) {
    case RoundMode::CAST_FLOOR:
      return negative && !exact;
    case RoundMode::CAST_CEIL:
      return !negative && !exact;
    case RoundMode::CAST_ROUND:
      return guard;
    case RoundMode::CAST_TRUNC:
      return false;
    case RoundMode::CAST_ODD:
      return !exact && !odd;
    default:
      return guard && (sticky || odd);
  }
}

#if defined(__x86_64__)
__attribute__((target("avx,f16c"))) size_t WidenF16c(const uint16_t* from, float* to, size_t n) {
  size_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
  return i;
}
__attribute__((target("avx,f16c"))) size_t NarrowF16c(const float* from, uint16_t* to, size_t n) {
  size_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
  return i;
}
const bool kF16c = __builtin_cpu_supports("f16c") != 0 && __builtin_cpu_supports("avx") != 0;
#endif

}  // namespace

void HalvesToFloats(const uint16_t* from, float* to, size_t n) {
  size_t i = 0;
#if defined(__x86_64__)
  if (kF16c) i = WidenF16c(from, to, n);
#endif
  for (; i < n; ++i) to[i] = HalfToFloat(from[i]);
}

void FloatsToHalves(const float* from, uint16_t* to, size_t n) {
  size_t i = 0;
#if defined(__x86_64__)
  if (kF16c) i = NarrowF16c(from, to, n);
#endif
  for (; i < n; ++i) to[i] = FloatToHalf(from[i]);
}

void Bf16sToFloats(const uint16_t* from, float* to, size_t n) {
  for (size_t i = 0; i < n; ++i) to[i] = Bf16ToFloat(from[i]);
}

void FloatsToBf16s(const float* from, uint16_t* to, size_t n) {
  for (size_t i = 0; i < n; ++i) to[i] = FloatToBf16(from[i]);
}

void SaturateHalves(uint16_t* values, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    const uint16_t magnitude = values[i] & 0x7fff;
    values[i] = magnitude > 0x7c00    ? 0
                : magnitude == 0x7c00 ? static_cast<uint16_t>((values[i] & 0x8000) | 0x7bff)
                                      : values[i];
  }
}

void SaturateBf16s(uint16_t* values, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    const uint16_t magnitude = values[i] & 0x7fff;
    values[i] = magnitude > 0x7f80    ? 0
                : magnitude == 0x7f80 ? static_cast<uint16_t>((values[i] & 0x8000) | 0x7f7f)
                                      : values[i];
  }
}

uint16_t RoundToHalf(float value, uint8_t mode) {
  const uint32_t bits = BitCast<uint32_t>(value), magnitude = bits & 0x7fffffff;
  const uint16_t sign = static_cast<uint16_t>(bits >> 16) & 0x8000;
  if (magnitude >= 0x7f800000) return FloatToHalf(value);
  const int exponent = static_cast<int>(magnitude >> 23);
  uint32_t kept;
  bool guard, sticky;
  if (exponent > 127 + 15) {  // beyond the largest number
    kept = 0x7bff;
    guard = sticky = true;
  } else {
    const uint32_t mantissa = exponent == 0 ? magnitude : (magnitude & 0x7fffff) | 0x800000;
    // Digits that do not fit: 13, and one more for every power of two below the smallest normal number.
    const int dropped = exponent >= 127 - 14 ? 13 : 13 + (127 - 14) - (exponent == 0 ? 1 : exponent);
    const uint32_t digits = dropped > 25 ? 0 : mantissa >> dropped;
    kept =
        exponent >= 127 - 14 ? (static_cast<uint32_t>(exponent - 127 + 15) << 10) + (digits - 1024) : digits;
    guard = dropped <= 25 && (mantissa >> (dropped - 1) & 1) != 0;
    sticky = dropped > 25 ? mantissa != 0 : (mantissa & ((1u << (dropped - 1)) - 1)) != 0;
  }
  if (RoundsUp((kept & 1) != 0, guard, sticky, sign != 0, mode)) ++kept;
  return sign | static_cast<uint16_t>(kept);
}

uint16_t RoundToBf16(float value, uint8_t mode) {
  const uint32_t bits = BitCast<uint32_t>(value);
  if ((bits & 0x7fffffff) >= 0x7f800000) return FloatToBf16(value);
  uint32_t kept = bits >> 16;
  if (RoundsUp((kept & 1) != 0, (bits & 0x8000) != 0, (bits & 0x7fff) != 0, bits >> 31 != 0, mode)) ++kept;
  return static_cast<uint16_t>(kept);
}

float RoundToFloat(int64_t value, uint8_t mode) {
  const bool negative = value < 0;
  const uint64_t magnitude = negative ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  if (magnitude < (uint64_t{1} << 24)) return static_cast<float>(value);
  const int dropped = 64 - __builtin_clzll(magnitude) - 24;
  uint64_t kept = magnitude;
  if (dropped > 0) {
    const bool guard = (magnitude >> (dropped - 1) & 1) != 0;
    const bool sticky = (magnitude & ((uint64_t{1} << (dropped - 1)) - 1)) != 0;
    kept = magnitude >> dropped;
    if (RoundsUp((kept & 1) != 0, guard, sticky, negative, mode)) ++kept;
  }
  const float result = std::ldexp(static_cast<float>(kept), dropped);
  return negative ? -result : result;
}

double RoundToIntegral(double value, uint8_t mode) {
  switch (static_cast<RoundMode>(mode)) {
    case RoundMode::CAST_FLOOR:
      return std::floor(value);
    case RoundMode::CAST_CEIL:
      return std::ceil(value);
    case RoundMode::CAST_ROUND:
      return std::round(value);
    case RoundMode::CAST_TRUNC:
      return std::trunc(value);
    default:
      return std::nearbyint(value);
  }
}

}  // namespace tilewright::twin
