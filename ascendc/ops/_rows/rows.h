// Tiles of a matrix's rows in UB: rows `pitch` elements apart, of which the first `cols` count. A tile is
// whole rows, or a piece of one.
#pragma once

#include "../_kv/lanes.h"

namespace tw_rows {

using namespace tw_kv;
using AscendC::GlobalTensor;
using AscendC::HardEvent;
using AscendC::LocalTensor;
using AscendC::SetFlag;
using AscendC::WaitFlag;

struct Tile {
  int32_t rows, cols, pitch;
  __aicore__ inline int32_t count() const { return rows * pitch; }
};

// Rows `apart` elements from one another in global memory. What is between a row's end and its pitch stays,
// but for the rest of a block, which becomes 0.
template <typename T>
__aicore__ inline void Load(const LocalTensor<T>& dst, const GlobalTensor<T>& src, const Tile& s,
                            int32_t apart) {
  constexpr int32_t kSize = static_cast<int32_t>(sizeof(T));
  const int32_t bytes = s.cols * kSize, whole = RoundUp(bytes, kBlock);
  AscendC::DataCopyExtParams p;
  p.blockCount = static_cast<uint16_t>(s.rows);
  p.blockLen = static_cast<uint32_t>(bytes);
  p.srcStride = s.rows > 1 ? static_cast<uint32_t>((apart - s.cols) * kSize) : 0;
  p.dstStride = static_cast<uint32_t>((s.pitch * kSize - whole) / kBlock);
  AscendC::DataCopyPad(
      dst, src, p,
      AscendC::DataCopyPadExtParams<T>(true, 0, static_cast<uint8_t>((whole - bytes) / kSize), T(0)));
}
template <typename T>
__aicore__ inline void Store(const GlobalTensor<T>& dst, const LocalTensor<T>& src, const Tile& s,
                             int32_t apart) {
  constexpr int32_t kSize = static_cast<int32_t>(sizeof(T));
  const int32_t bytes = s.cols * kSize, whole = RoundUp(bytes, kBlock);
  AscendC::DataCopyExtParams p;
  p.blockCount = static_cast<uint16_t>(s.rows);
  p.blockLen = static_cast<uint32_t>(bytes);
  p.srcStride = static_cast<uint32_t>((s.pitch * kSize - whole) / kBlock);
  p.dstStride = s.rows > 1 ? static_cast<uint32_t>((apart - s.cols) * kSize) : 0;
  AscendC::DataCopyPad(dst, src, p);
}

// A dense run of numbers.
template <typename T>
__aicore__ inline void LoadRun(const LocalTensor<T>& dst, const GlobalTensor<T>& src, int32_t count) {
  Load(dst, src, Tile{1, count, RoundUp(count, kBlock)}, 0);
}
template <typename T>
__aicore__ inline void StoreRun(const GlobalTensor<T>& dst, const LocalTensor<T>& src, int32_t count) {
  Store(dst, src, Tile{1, count, RoundUp(count, kBlock)}, 0);
}

// Exact; floats are copied.
template <typename T>
__aicore__ inline void Widen(const LocalTensor<float>& dst, const LocalTensor<T>& src, int32_t count) {
  if constexpr (sizeof(T) == sizeof(float))
    AscendC::Muls(dst, src, 1.0f, count);
  else
    AscendC::Cast(dst, src, AscendC::RoundMode::CAST_NONE, static_cast<uint32_t>(count));
}

// Elements behind the rows' ends are read by instructions over whole tiles, so that all hold something.
template <typename T>
__aicore__ inline void Clear(const LocalTensor<T>& x, int32_t count) {
  AscendC::Duplicate(x.template ReinterpretCast<int16_t>(), static_cast<int16_t>(0),
                     count * static_cast<int32_t>(sizeof(T)) / 2);
}

// dst = src * by: a number a row, each in a block of its own.
__aicore__ inline void TimesRow(const LocalTensor<float>& dst, const LocalTensor<float>& src,
                                const LocalTensor<float>& by, const Tile& s) {
  const int32_t step = s.pitch / kBlockFloats, full = s.pitch / kFloats, rest = s.pitch % kFloats;
  if (step <= kMostRepeats && s.rows > full) {
    const AscendC::BinaryRepeatParams p(1, 1, 0, static_cast<uint8_t>(step), static_cast<uint8_t>(step), 1);
    for (int32_t c = 0; c < s.pitch; c += kFloats)
      AscendC::Mul(dst[static_cast<uint32_t>(c)], src[static_cast<uint32_t>(c)], by,
                   static_cast<uint64_t>(Min(kFloats, s.pitch - c)), s.rows, p);
    return;
  }
  const AscendC::BinaryRepeatParams p(1, 1, 0, 8, 8, 0);
  for (int32_t r = 0; r < s.rows; ++r) {
    const uint32_t at = static_cast<uint32_t>(r * s.pitch), tail = at + static_cast<uint32_t>(full * kFloats);
    const LocalTensor<float> number = by[static_cast<uint32_t>(r * kBlockFloats)];
    if (full > 0) AscendC::Mul(dst[at], src[at], number, static_cast<uint64_t>(kFloats), full, p);
    if (rest > 0) AscendC::Mul(dst[tail], src[tail], number, static_cast<uint64_t>(rest), 1, p);
  }
}
// dst = src * by: a number a column.
__aicore__ inline void TimesColumn(const LocalTensor<float>& dst, const LocalTensor<float>& src,
                                   const LocalTensor<float>& by, const Tile& s) {
  const int32_t step = s.pitch / kBlockFloats;
  if (step <= kMostRepeats && s.rows > s.pitch / kFloats) {
    const AscendC::BinaryRepeatParams p(1, 1, 1, static_cast<uint8_t>(step), static_cast<uint8_t>(step), 0);
    for (int32_t c = 0; c < s.pitch; c += kFloats)
      AscendC::Mul(dst[static_cast<uint32_t>(c)], src[static_cast<uint32_t>(c)], by[static_cast<uint32_t>(c)],
                   static_cast<uint64_t>(Min(kFloats, s.pitch - c)), s.rows, p);
    return;
  }
  for (int32_t r = 0; r < s.rows; ++r) {
    const uint32_t at = static_cast<uint32_t>(r * s.pitch);
    AscendC::Mul(dst[at], src[at], by, s.pitch);
  }
}

// Events of two slots between a copy in, the vector unit and a copy out.
__aicore__ inline void OpenSlots() {
  for (int32_t i = 0; i < 2; ++i) {
    SetFlag<HardEvent::V_MTE2>(i);
    SetFlag<HardEvent::MTE3_V>(i);
  }
}
__aicore__ inline void CloseSlots() {
  for (int32_t i = 0; i < 2; ++i) {
    WaitFlag<HardEvent::V_MTE2>(i);
    WaitFlag<HardEvent::MTE3_V>(i);
  }
  AscendC::PipeBarrier<PIPE_ALL>();
}

}  // namespace tw_rows
