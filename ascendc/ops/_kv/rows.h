// Rows [tokens, heads, segments, elements] between global memory and UB, where each segment is padded to
// whole blocks of 32 bytes.
#pragma once

#include "slots.h"

namespace tw_kv {

// What a tile holds. A head's row is one segment, or four where a lane packs an element of each.
struct Shape {
  int32_t tokens, heads, segments;
  int32_t valid, padded;  // elements of a segment; padded ones fill whole blocks
  __aicore__ inline int32_t rows() const { return tokens * heads; }
  __aicore__ inline int32_t row() const { return segments * padded; }
  __aicore__ inline int32_t width() const { return heads * row(); }  // of a token
  __aicore__ inline int32_t count() const { return tokens * width(); }
  __aicore__ inline int32_t head() const { return segments * valid; }  // elements in global memory
};

// Elements from one token, one head to the next in global memory.
struct Strides {
  int32_t token, head;
};

template <typename T>
struct RowCopies {
  int32_t copies, many;  // per token: copies, of so many segments each
  uint32_t bytes, gm_gap, ub_gap;
  bool one;  // all tokens in one copy

  // `pitch`: elements from one token to the next in UB.
  __aicore__ inline RowCopies(const Shape& s, const Strides& apart, int32_t pitch) {
    constexpr int32_t kSize = static_cast<int32_t>(sizeof(T));
    const bool close = s.heads == 1 || apart.head == s.head();
    one = close && s.valid == s.padded;
    if (one) {
      copies = 1;
      many = s.tokens;
      bytes = static_cast<uint32_t>(s.width() * kSize);
      gm_gap = static_cast<uint32_t>(apart.token - s.width()) * kSize;
      ub_gap = static_cast<uint32_t>((pitch - s.width()) * kSize / kBlock);
      return;
    }
    copies = close ? 1 : s.heads;
    many = close ? s.heads * s.segments : s.segments;
    bytes = static_cast<uint32_t>(s.valid * kSize);
    gm_gap = 0;
    ub_gap = static_cast<uint32_t>((s.padded * kSize - RoundUp(s.valid * kSize, kBlock)) / kBlock);
  }
};

// Into rows `pitch` elements apart. The rest of a segment's last block becomes `fill`; blocks behind it stay.
template <typename T>
__aicore__ inline void LoadRows(const AscendC::LocalTensor<T>& dst, const AscendC::GlobalTensor<T>& src,
                                const Shape& s, const Strides& apart, int32_t pitch, T fill = T(0)) {
  const RowCopies<T> of(s, apart, pitch);
  AscendC::DataCopyExtParams p;
  p.blockCount = static_cast<uint16_t>(of.many);
  p.blockLen = of.bytes;
  p.srcStride = of.gm_gap;
  p.dstStride = of.ub_gap;
  if (of.one) {
    AscendC::DataCopyPad(dst, src, p, AscendC::DataCopyPadExtParams<T>());
    return;
  }
  const int32_t rest = RoundUp(static_cast<int32_t>(of.bytes), kBlock) - static_cast<int32_t>(of.bytes);
  const AscendC::DataCopyPadExtParams<T> pad(
      true, 0, static_cast<uint8_t>(rest / static_cast<int32_t>(sizeof(T))), fill);
  for (int32_t i = 0; i < s.tokens; ++i)
    for (int32_t h = 0; h < of.copies; ++h)
      AscendC::DataCopyPad(
          dst[static_cast<uint32_t>(i * pitch + h * s.row())],
          src[static_cast<uint64_t>(i) * apart.token + static_cast<uint64_t>(h) * apart.head], p, pad);
}

template <typename T>
__aicore__ inline void StoreRows(const AscendC::GlobalTensor<T>& dst, const AscendC::LocalTensor<T>& src,
                                 const Shape& s, const Strides& apart, int32_t pitch) {
  const RowCopies<T> of(s, apart, pitch);
  AscendC::DataCopyExtParams p;
  p.blockCount = static_cast<uint16_t>(of.many);
  p.blockLen = of.bytes;
  p.srcStride = of.ub_gap;
  p.dstStride = of.gm_gap;
  if (of.one) {
    AscendC::DataCopyPad(dst, src, p);
    return;
  }
  for (int32_t i = 0; i < s.tokens; ++i)
    for (int32_t h = 0; h < of.copies; ++h)
      AscendC::DataCopyPad(
          dst[static_cast<uint64_t>(i) * apart.token + static_cast<uint64_t>(h) * apart.head],
          src[static_cast<uint32_t>(i * pitch + h * s.row())], p);
}

}  // namespace tw_kv
