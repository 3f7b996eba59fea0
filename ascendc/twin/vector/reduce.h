// Values and keys of reductions: half and float as integers that compare as the values do, sums in halves.
#pragma once

#include "api/types.h"
#include "vector/lanes.h"

namespace tilewright::twin {

// Larger value, larger key; -0 equals +0. A NaN wins, be it the largest or the smallest that is looked for.
template <bool kMin>
inline int32_t KeyOf(uint32_t bits) {
  const int32_t magnitude = static_cast<int32_t>(bits & 0x7fffffff), sign = static_cast<int32_t>(bits) >> 31;
  const int32_t key = (magnitude ^ sign) - sign;
  const int32_t found = kMin ? -key : key;
  return magnitude > 0x7f800000 ? INT32_MAX : found;
}

template <bool kMin>
inline int32_t KeyOf(uint16_t bits) {
  const int32_t magnitude = bits & 0x7fff, sign = -(bits >> 15);
  const int32_t key = (magnitude ^ sign) - sign;
  const int32_t found = kMin ? -key : key;
  return magnitude > 0x7c00 ? INT32_MAX : found;
}

struct Best {
  int32_t key;
  uint32_t lane;
};

// The winner of `lanes` elements; `bits` say which take part, at least one does. Equal ones: the first.
template <bool kMin, class T>
inline Best FindBest(const T* x, uint32_t lanes, const LaneBits* bits) {
  int32_t keys[128];
  for (uint32_t i = 0; i < lanes; ++i) keys[i] = KeyOf<kMin>(x[i]);
  if (bits != nullptr)
    for (uint32_t i = 0; i < lanes; ++i)
      if (!bits->Has(i)) keys[i] = INT32_MIN;
  int32_t best = INT32_MIN;
  for (uint32_t i = 0; i < lanes; ++i) best = keys[i] > best ? keys[i] : best;
  uint32_t lane = 0;
  while (keys[lane] != best) ++lane;
  return {best, lane};
}

inline float RoundHalf(float value, bool saturate) {
  const uint16_t h = FloatToHalf(value);
  if (saturate && (h & 0x7fff) >= 0x7c00) {
    if ((h & 0x7fff) > 0x7c00) return 0.0f;
    return value < 0 ? -65504.0f : 65504.0f;
  }
  return HalfToFloat(h);
}

// Widens `count` elements of T (uint16_t: half, uint32_t: float) to float.
template <class T>
inline void Widen(float* out, const T* x, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    if constexpr (sizeof(T) == 2)
      out[i] = HalfToFloat(x[i]);
    else
      out[i] = BitCast<float>(x[i]);
  }
}

template <class T>
inline T Narrow(float value) {
  if constexpr (sizeof(T) == 2)
    return FloatToHalf(value);
  else
    return BitCast<uint32_t>(value);
}

// The documented order: neighbours are added, then the neighbours of the sums, and so on; every sum is
// rounded to T. Absent elements are -0, which leaves the other one as it is. `count` is a power of two.
template <class T>
inline float TreeSum(float* x, uint32_t count, bool saturate) {
  for (; count > 1; count /= 2)
    for (uint32_t i = 0; i < count / 2; ++i) {
      x[i] = x[2 * i] + x[2 * i + 1];
      if constexpr (sizeof(T) == 2) x[i] = RoundHalf(x[i], saturate);
    }
  return x[0];
}

// The repeats of the source, one after the other in lane order.
template <class T>
class Source {
 public:
  static constexpr uint32_t kLanes = kRepeatBytes / sizeof(T);

  Source(Core& core, const Record& r)
      : v_(r.vec),
        base_(core.At(r.operand[1])),
        block_(int64_t{v_.block_stride[1]} * kBlockBytes),
        step_(int64_t{v_.repeat_stride[1]} * kBlockBytes) {}

  const T* Repeat(uint32_t i) {
    bits_ = BitsOfRepeat(v_, i, kLanes);
    const uint32_t blocks = CeilDiv(EndOfLanes(bits_), kBlockBytes / sizeof(T));
    return reinterpret_cast<const T*>(FetchRepeat(base_ + i * step_, block_, blocks, buffer_));
  }
  const LaneBits& bits() const { return bits_; }
  bool all() const { return AllLanes(bits_, kLanes); }

 private:
  const VecArgs& v_;
  const uint8_t* base_;
  int64_t block_, step_;
  LaneBits bits_{};
  alignas(32) uint8_t buffer_[kRepeatBytes];
};

inline void DropLanes(float* x, uint32_t lanes, const LaneBits& bits) {
  for (uint32_t i = 0; i < lanes; ++i)
    if (!bits.Has(i)) x[i] = -0.0f;
}

}  // namespace tilewright::twin
