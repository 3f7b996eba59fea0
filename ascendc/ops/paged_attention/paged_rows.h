// Vector instructions over rows of floats in UB, 64 columns at a time. `pitch`: elements from row to row;
// a "spread" holds one value a row, eight times.
#pragma once

#include "paged_walk.h"

namespace tw_paged {

constexpr int32_t kLanes = 64;  // floats of a repeat
constexpr int32_t kBlock = 8;   // floats of 32 bytes

__aicore__ inline void VectorBarrier() { AscendC::PipeBarrier<PIPE_V>(); }

__aicore__ inline uint8_t Blocks(int32_t elements) { return static_cast<uint8_t>(elements / kBlock); }

__aicore__ inline void Spread(const LocalTensor<float>& dst, const LocalTensor<float>& values, int32_t rows) {
  AscendC::Brcb(dst, values, static_cast<uint8_t>(CeilDiv(rows, kBlock)), AscendC::BrcbRepeatParams(1, 8));
}

// rows [rows, columns] each with a value of its own.
__aicore__ inline void MulRows(const LocalTensor<float>& x, const LocalTensor<float>& spread, int32_t rows,
                               int32_t columns, int32_t pitch) {
  const AscendC::BinaryRepeatParams p(1, 1, 0, Blocks(pitch), Blocks(pitch), 1);
  for (int32_t c = 0; c < columns; c += kLanes)
    AscendC::Mul(x[c], x[c], spread, static_cast<uint64_t>(Min(kLanes, columns - c)), rows, p);
}
__aicore__ inline void SubRows(const LocalTensor<float>& x, const LocalTensor<float>& spread, int32_t rows,
                               int32_t columns, int32_t pitch) {
  const AscendC::BinaryRepeatParams p(1, 1, 0, Blocks(pitch), Blocks(pitch), 1);
  for (int32_t c = 0; c < columns; c += kLanes)
    AscendC::Sub(x[c], x[c], spread, static_cast<uint64_t>(Min(kLanes, columns - c)), rows, p);
}
__aicore__ inline void DivRows(const LocalTensor<float>& x, const LocalTensor<float>& spread, int32_t rows,
                               int32_t columns, int32_t pitch) {
  const AscendC::BinaryRepeatParams p(1, 1, 0, Blocks(pitch), Blocks(pitch), 1);
  for (int32_t c = 0; c < columns; c += kLanes)
    AscendC::Div(x[c], x[c], spread, static_cast<uint64_t>(Min(kLanes, columns - c)), rows, p);
}
// Every row with the same values.
__aicore__ inline void MulColumns(const LocalTensor<float>& x, const LocalTensor<float>& values, int32_t rows,
                                  int32_t columns, int32_t pitch) {
  const AscendC::BinaryRepeatParams p(1, 1, 1, Blocks(pitch), Blocks(pitch), 0);
  for (int32_t c = 0; c < columns; c += kLanes)
    AscendC::Mul(x[c], x[c], values[c], static_cast<uint64_t>(Min(kLanes, columns - c)), rows, p);
}

__aicore__ inline void Scale(const LocalTensor<float>& x, float factor, int32_t rows, int32_t columns,
                             int32_t pitch) {
  const AscendC::UnaryRepeatParams p(1, 1, Blocks(pitch), Blocks(pitch));
  for (int32_t c = 0; c < columns; c += kLanes)
    AscendC::Muls(x[c], x[c], factor, static_cast<uint64_t>(Min(kLanes, columns - c)), rows, p);
}
__aicore__ inline void Shift(const LocalTensor<float>& x, float term, int32_t rows, int32_t columns,
                             int32_t pitch) {
  const AscendC::UnaryRepeatParams p(1, 1, Blocks(pitch), Blocks(pitch));
  for (int32_t c = 0; c < columns; c += kLanes)
    AscendC::Adds(x[c], x[c], term, static_cast<uint64_t>(Min(kLanes, columns - c)), rows, p);
}
__aicore__ inline void Exponentials(const LocalTensor<float>& x, int32_t rows, int32_t columns,
                                    int32_t pitch) {
  const AscendC::UnaryRepeatParams p(1, 1, Blocks(pitch), Blocks(pitch));
  for (int32_t c = 0; c < columns; c += kLanes)
    AscendC::Exp(x[c], x[c], static_cast<uint64_t>(Min(kLanes, columns - c)), rows, p);
}
__aicore__ inline void Reciprocals(const LocalTensor<float>& x, const LocalTensor<float>& one, int32_t rows,
                                   int32_t columns, int32_t pitch) {
  const AscendC::BinaryRepeatParams p(1, 0, 1, Blocks(pitch), 0, Blocks(pitch));
  for (int32_t c = 0; c < columns; c += kLanes)
    AscendC::Div(x[c], one, x[c], static_cast<uint64_t>(Min(kLanes, columns - c)), rows, p);
}

// Columns from `from` up to a multiple of 64 become `value`.
__aicore__ inline void FillFrom(const LocalTensor<float>& x, int32_t from, float value, int32_t rows,
                                int32_t columns, int32_t pitch) {
  for (int32_t c = from / kLanes * kLanes; c < columns; c += kLanes) {
    const uint64_t lanes[2] = {c < from ? ~uint64_t{0} << (from - c) : ~uint64_t{0}, 0};
    AscendC::Duplicate(x[c], value, lanes, rows, 1, Blocks(pitch));
  }
}

// The first `count` columns, fewer than 64, become `value`.
__aicore__ inline void FillFirst(const LocalTensor<float>& x, int32_t count, float value, int32_t rows,
                                 int32_t pitch) {
  if (count > 0) AscendC::Duplicate(x, value, static_cast<uint64_t>(count), rows, 1, Blocks(pitch));
}

// One value a row out of `columns`, a multiple of 64; `fold` holds 64 a row.
__aicore__ inline void RowMax(const LocalTensor<float>& dst, const LocalTensor<float>& x,
                              const LocalTensor<float>& fold, int32_t rows, int32_t columns, int32_t pitch) {
  if (columns <= kLanes) {
    AscendC::WholeReduceMax(dst, x, kLanes, rows, 1, 1, pitch / kBlock,
                            AscendC::ReduceOrder::ORDER_ONLY_VALUE);
    return;
  }
  const AscendC::BinaryRepeatParams two(1, 1, 1, 8, Blocks(pitch), Blocks(pitch)),
      more(1, 1, 1, 8, 8, Blocks(pitch));
  AscendC::Max(fold, x, x[kLanes], kLanes, rows, two);
  for (int32_t c = 2 * kLanes; c < columns; c += kLanes) {
    VectorBarrier();
    AscendC::Max(fold, fold, x[c], kLanes, rows, more);
  }
  VectorBarrier();
  AscendC::WholeReduceMax(dst, fold, kLanes, rows, 1, 1, 8, AscendC::ReduceOrder::ORDER_ONLY_VALUE);
}
__aicore__ inline void RowSum(const LocalTensor<float>& dst, const LocalTensor<float>& x,
                              const LocalTensor<float>& fold, int32_t rows, int32_t columns, int32_t pitch) {
  if (columns <= kLanes) {
    AscendC::WholeReduceSum(dst, x, kLanes, rows, 1, 1, pitch / kBlock);
    return;
  }
  const AscendC::BinaryRepeatParams two(1, 1, 1, 8, Blocks(pitch), Blocks(pitch)),
      more(1, 1, 1, 8, 8, Blocks(pitch));
  AscendC::Add(fold, x, x[kLanes], kLanes, rows, two);
  for (int32_t c = 2 * kLanes; c < columns; c += kLanes) {
    VectorBarrier();
    AscendC::Add(fold, fold, x[c], kLanes, rows, more);
  }
  VectorBarrier();
  AscendC::WholeReduceSum(dst, fold, kLanes, rows, 1, 1, 8);
}

// Floats to what memory holds, rounded to nearest even.
template <typename T>
__aicore__ inline void Narrow(const LocalTensor<T>& dst, const LocalTensor<float>& src, int32_t count) {
  if constexpr (sizeof(T) == sizeof(float)) {
    AscendC::Muls(dst, src, 1.0f, count);
  } else {
    AscendC::Cast(dst, src, AscendC::RoundMode::CAST_RINT, static_cast<uint32_t>(count));
  }
}
template <typename T>
__aicore__ inline void Widen(const LocalTensor<float>& dst, const LocalTensor<T>& src, int32_t count) {
  if constexpr (sizeof(T) == sizeof(float)) {
    AscendC::Muls(dst, src, 1.0f, count);
  } else {
    AscendC::Cast(dst, src, AscendC::RoundMode::CAST_NONE, static_cast<uint32_t>(count));
  }
}

}  // namespace tw_paged
