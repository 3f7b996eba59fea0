// What the scalar unit computes on its own values, under the names of CANN 9 and of CANN 8.
#pragma once

#include "api/scalar.h"
#include "api/system.h"
#include "api/tensor.h"

namespace AscendC {

inline int64_t CountLeadingZero(uint64_t valueIn) { return valueIn == 0 ? 64 : __builtin_clzll(valueIn); }
// Bits below the sign bit that equal it.
inline int64_t CountBitsCntSameAsSignBit(int64_t valueIn) { return __builtin_clrsbll(valueIn); }
template <int countValue>
inline int64_t GetBitCount(uint64_t valueIn) {
  static_assert(countValue == 0 || countValue == 1, "countValue is the bit to count: 0 or 1");
  const int64_t ones = __builtin_popcountll(valueIn);
  return countValue == 1 ? ones : 64 - ones;
}
// The place of the lowest 0 or 1; -1 where there is none.
template <int countValue>
inline int64_t GetSFFValue(uint64_t valueIn) {
  static_assert(countValue == 0 || countValue == 1, "countValue is the bit to find: 0 or 1");
  const uint64_t bits = countValue == 1 ? valueIn : ~valueIn;
  return bits == 0 ? -1 : __builtin_ctzll(bits);
}

inline int64_t ScalarCountLeadingZero(uint64_t valueIn) { return CountLeadingZero(valueIn); }
template <int countValue>
inline int64_t ScalarGetCountOfValue(uint64_t valueIn) {
  return GetBitCount<countValue>(valueIn);
}
template <int countValue>
inline int64_t ScalarGetSFFValue(uint64_t valueIn) {
  return GetSFFValue<countValue>(valueIn);
}

namespace detail {

template <RoundMode mode>
inline double RoundTo(double value) {
  switch (mode) {
    case RoundMode::CAST_FLOOR:
      return __builtin_floor(value);
    case RoundMode::CAST_CEIL:
      return __builtin_ceil(value);
    case RoundMode::CAST_ROUND:
      return __builtin_round(value);
    case RoundMode::CAST_TRUNC:
      return __builtin_trunc(value);
    default:
      return __builtin_nearbyint(value);
  }
}

// The half next to `value` that is odd in its last place, unless `value` is a half itself.
inline half OddHalf(float value) {
  half near(value);
  const float back = near;
  if (back == value || value != value) return near;
  const bool beyond = (back < 0 ? -back : back) > (value < 0 ? -value : value);
  const auto toward = static_cast<uint16_t>(beyond ? near.bits - 1 : near.bits);
  near.bits = static_cast<uint16_t>(toward | 1);
  return near;
}

}  // namespace detail

// float -> int32_t in every mode, saturating; float -> half as CAST_ODD says (CAST_NONE: to nearest).
template <typename T, typename U, RoundMode roundMode>
inline U Cast(T valueIn) {
  static_assert(std::is_same_v<T, float>, "the scalar Cast takes a float");
  static_assert(std::is_same_v<U, half> || std::is_same_v<U, int32_t>,
                "the scalar Cast gives half or int32_t");
  if constexpr (std::is_same_v<U, half>) {
    return roundMode == RoundMode::CAST_ODD ? detail::OddHalf(valueIn) : half(valueIn);
  } else {
    if (valueIn != valueIn) return 0;
    const double rounded = detail::RoundTo<roundMode>(valueIn);
    if (rounded >= 2147483647.0) return INT32_MAX;
    if (rounded <= -2147483648.0) return INT32_MIN;
    return static_cast<U>(rounded);
  }
}
inline bfloat16_t Cast(const float& fVal) { return bfloat16_t(fVal); }
inline float Cast(const bfloat16_t& bVal) { return static_cast<float>(bVal); }

template <typename T, typename U, RoundMode roundMode>
inline U ScalarCast(T valueIn) {
  return Cast<T, U, roundMode>(valueIn);
}
inline bfloat16_t ToBfloat16(const float& fVal) { return bfloat16_t(fVal); }
inline float ToFloat(const bfloat16_t& bVal) { return static_cast<float>(bVal); }

// Past the data cache: the same on the twin, whose scalar unit has none.
template <typename T>
inline T ReadGmByPassDCache(__gm__ T* addr, tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  GlobalTensor<T> tensor;
  tensor.SetGlobalBuffer(addr);
  return tensor.GetValue(0, at);
}
template <typename T>
inline void WriteGmByPassDCache(__gm__ T* addr, T value,
                                tilewright::twin::Place at = tilewright::twin::Place::Here()) {
  GlobalTensor<T> tensor;
  tensor.SetGlobalBuffer(addr);
  detail::EmitScalar(tilewright::twin::Op::ScalarSet, tensor.AsOperand(true), BitsOf(value), sizeof(T), at,
                     true);
}

}  // namespace AscendC
