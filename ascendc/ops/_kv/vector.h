// Vector arithmetic on tiles of fp32 [tokens, heads, segments, elements] in UB. Every operation rounds once,
// in the order written. Between dependent operations stands a Fence.
#pragma once

#include "rows.h"

namespace tw_kv {

using AscendC::LocalTensor;

constexpr int32_t kFloats = 64;      // fp32 elements of one repeat
constexpr int32_t kWords = 128;      // 16-bit elements of one repeat
constexpr int32_t kBlockFloats = 8;  // fp32 elements of a block
constexpr int32_t kMaxRows = 128;    // of a tile
constexpr int32_t kMostRepeats = 255;

__aicore__ inline void Fence() { AscendC::PipeBarrier<PIPE_V>(); }

struct Add2 {
  template <typename... A>
  __aicore__ static inline void Do(const A&... a) {
    AscendC::Add(a...);
  }
};
struct Sub2 {
  template <typename... A>
  __aicore__ static inline void Do(const A&... a) {
    AscendC::Sub(a...);
  }
};
struct Mul2 {
  template <typename... A>
  __aicore__ static inline void Do(const A&... a) {
    AscendC::Mul(a...);
  }
};
struct Max2 {
  static constexpr float kLeast = -3.4028234663852886e38f;  // what changes no result
  template <typename... A>
  __aicore__ static inline void Do(const A&... a) {
    AscendC::Max(a...);
  }
  template <typename... A>
  __aicore__ static inline void Blocks(const A&... a) {
    AscendC::BlockReduceMax(a...);
  }
};
struct Min2 {
  static constexpr float kLeast = 3.4028234663852886e38f;
  template <typename... A>
  __aicore__ static inline void Do(const A&... a) {
    AscendC::Min(a...);
  }
  template <typename... A>
  __aicore__ static inline void Blocks(const A&... a) {
    AscendC::BlockReduceMin(a...);
  }
};

// Blocks of 32 bytes that SpreadRows makes of a row's number: one a repeat, where repeats fill rows, so that
// a tile is one instruction over memory as it lies; else one.
__aicore__ inline int32_t BlocksOfRow(const Shape& s) {
  const bool whole = s.row() % kFloats == 0 && s.count() / kFloats <= kMostRepeats;
  return whole ? s.row() / kFloats : 1;
}
__aicore__ inline void SpreadRows(const LocalTensor<float>& dst, const LocalTensor<float>& src,
                                  const Shape& s) {
  const int32_t blocks = BlocksOfRow(s);
  const AscendC::BrcbRepeatParams p(static_cast<uint16_t>(blocks), static_cast<uint16_t>(8 * blocks));
  for (int32_t i = 0; i < blocks; ++i)
    AscendC::Brcb(dst[static_cast<uint32_t>(i * kBlockFloats)], src,
                  static_cast<uint8_t>(CeilDiv(s.rows(), 8)), p);
}

// dst = src op by, a number a row, which SpreadRows spread.
template <typename Op>
__aicore__ inline void ByRow(const LocalTensor<float>& dst, const LocalTensor<float>& src,
                             const LocalTensor<float>& by, const Shape& s) {
  if (BlocksOfRow(s) * kFloats == s.row()) {
    Op::Do(dst, src, by, static_cast<uint64_t>(kFloats), s.count() / kFloats,
           AscendC::BinaryRepeatParams(1, 1, 0, 8, 8, 1));
    return;
  }
  const uint8_t step = static_cast<uint8_t>(s.row() / kBlockFloats);
  for (int32_t c = 0; c < s.row(); c += kFloats)
    Op::Do(dst[static_cast<uint32_t>(c)], src[static_cast<uint32_t>(c)], by,
           static_cast<uint64_t>(Min(kFloats, s.row() - c)), s.rows(),
           AscendC::BinaryRepeatParams(1, 1, 0, step, step, 1));
}

// dst = src op by, `by` a number for each element of a token.
template <typename Op>
__aicore__ inline void ByChannel(const LocalTensor<float>& dst, const LocalTensor<float>& src,
                                 const LocalTensor<float>& by, const Shape& s) {
  const uint8_t step = static_cast<uint8_t>(s.width() / kBlockFloats);
  for (int32_t c = 0; c < s.width(); c += kFloats)
    Op::Do(dst[static_cast<uint32_t>(c)], src[static_cast<uint32_t>(c)], by[static_cast<uint32_t>(c)],
           static_cast<uint64_t>(Min(kFloats, s.width() - c)), s.tokens,
           AscendC::BinaryRepeatParams(1, 1, 1, step, step, 0));
}

// The largest or smallest number of each row. `wide` takes 64 elements a row, `eight` 8 elements each of
// whole groups of eight rows, of which those behind the last row hold anything.
template <typename Op>
__aicore__ inline void RangeOfRows(const LocalTensor<float>& dst, const LocalTensor<float>& src,
                                   const LocalTensor<float>& wide, const LocalTensor<float>& eight,
                                   const Shape& s) {
  const uint8_t step = static_cast<uint8_t>(s.row() / kBlockFloats);
  const bool whole = s.segments == 1 && s.row() % kFloats == 0;
  if (whole) {  // two columns of 64 at once; of one alone, itself
    Op::Do(wide, src, src[static_cast<uint32_t>(Min(kFloats, s.row() - kFloats))],
           static_cast<uint64_t>(kFloats), s.rows(), AscendC::BinaryRepeatParams(1, 1, 1, 8, step, step));
  } else {
    AscendC::Duplicate(wide, Op::kLeast, s.rows() * kFloats);
  }
  Fence();
  for (int32_t segment = 0; segment < s.segments; ++segment)
    for (int32_t c = whole ? 2 * kFloats : 0; c < s.valid; c += kFloats) {
      Op::Do(wide, wide, src[static_cast<uint32_t>(segment * s.padded + c)],
             static_cast<uint64_t>(Min(kFloats, s.valid - c)), s.rows(),
             AscendC::BinaryRepeatParams(1, 1, 1, 8, 8, step));
      Fence();
    }
  Op::Blocks(eight, wide, s.rows(), kFloats, 1, 1, 8);
  Fence();
  Op::Blocks(dst, eight, CeilDiv(s.rows(), 8), kFloats, 1, 1, 8);
}

// The largest or smallest of each of `width` channels over 16 tokens; `half` takes eight tokens.
template <typename Op>
__aicore__ inline void RangeOfChannels(const LocalTensor<float>& dst, const LocalTensor<float>& src,
                                       const LocalTensor<float>& half, int32_t width) {
  Op::Do(half, src, src[static_cast<uint32_t>(8 * width)], 8 * width);
  Fence();
  Op::Do(half, half, half[static_cast<uint32_t>(4 * width)], 4 * width);
  Fence();
  Op::Do(half, half, half[static_cast<uint32_t>(2 * width)], 2 * width);
  Fence();
  Op::Do(dst, half, half[static_cast<uint32_t>(width)], width);
}

// dst = 1 / src.
__aicore__ inline void Invert(const LocalTensor<float>& dst, const LocalTensor<float>& src, int32_t count) {
  AscendC::Duplicate(dst, 1.0f, count);
  Fence();
  AscendC::Div(dst, dst, src, count);
}

// A block of 32 bytes of each of `count` numbers.
template <typename T>
__aicore__ inline void Spread(const LocalTensor<T>& dst, const LocalTensor<T>& src, int32_t count) {
  AscendC::Brcb(dst, src, static_cast<uint8_t>(CeilDiv(count, 8)), AscendC::BrcbRepeatParams(1, 8));
}

}  // namespace tw_kv
