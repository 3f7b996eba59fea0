// Pages in Ascend's fractals, [heads, columns, 16 tokens, 32 bytes], and the way between them and rows in UB.
#pragma once

#include "slots.h"

namespace tw_kv {

constexpr int32_t kHalfPage = kPage / 2;  // blocks of one repeat
constexpr int32_t kLanes = kBlock / 2;    // of 16 bits in a block

// Blocks from one token's row to the next in UB: odd, so that the eight blocks of a repeat fall into eight
// groups of banks.
__aicore__ inline int32_t OddPitch(int32_t columns) { return columns | 1; }

// `columns` blocks of each of `tokens` rows, `pitch` blocks apart, to fractals of 16 tokens or back: eight
// tokens of a column a repeat.
template <bool kToPage>
__aicore__ inline void TurnBlocks(const AscendC::LocalTensor<int8_t>& rows,
                                  const AscendC::LocalTensor<int8_t>& page, int32_t tokens, int32_t columns,
                                  int32_t pitch) {
  const uint16_t apart = static_cast<uint16_t>(pitch);
  for (int32_t first = 0; first < tokens; first += kHalfPage) {
    const AscendC::LocalTensor<int16_t> row =
        rows[static_cast<uint32_t>(first * pitch * kBlock)].ReinterpretCast<int16_t>();
    const AscendC::LocalTensor<int16_t> fractal =
        page[static_cast<uint32_t>(first * kBlock)].ReinterpretCast<int16_t>();
    const uint64_t lanes = static_cast<uint64_t>(Min(kHalfPage, tokens - first) * kLanes);
    const uint8_t repeats = static_cast<uint8_t>(columns);
    if (kToPage)
      AscendC::Copy(fractal, row, lanes, repeats, AscendC::CopyRepeatParams(1, apart, kPage, 1));
    else
      AscendC::Copy(row, fractal, lanes, repeats, AscendC::CopyRepeatParams(apart, 1, 1, kPage));
  }
}

// A run's part of `heads` heads of a page, `blocks` blocks of each from the page's byte `at` on.
struct PagePart {
  uint64_t at;     // of the first head's first column
  int32_t place;   // of the run's first token in the page
  int32_t tokens;  // of the run
  int32_t heads;
  int32_t blocks;
  int32_t head_stride;  // bytes of the page
};

// Copies of one PagePart: `many` pieces of `bytes`, `gap` bytes apart in the page and gap / 32 blocks in UB.
struct Pieces {
  int32_t copies;  // one a head, where heads lie apart and runs do not fill the page
  int32_t many, bytes, gap, head_gap;
};
__aicore__ inline Pieces PiecesOf(const PagePart& part) {
  const int32_t head_bytes = part.blocks * kFractal;
  const bool close = part.heads == 1 || part.head_stride == head_bytes;
  if (part.tokens == kPage) {
    if (close) return {1, 1, part.heads * head_bytes, 0, 0};
    return {1, part.heads, head_bytes, 0, part.head_stride - head_bytes};
  }
  return {close ? 1 : part.heads, close ? part.heads * part.blocks : part.blocks, part.tokens * kBlock,
          (kPage - part.tokens) * kBlock, 0};
}
__aicore__ inline uint64_t AddressOf(const PagePart& part, int32_t head) {
  return part.at + static_cast<uint64_t>(head) * part.head_stride +
         static_cast<uint64_t>(part.place * kBlock);
}

// A whole page's part leaves in one piece; that of fewer tokens 32 bytes a token and column, no other
// token's.
__aicore__ inline void StorePage(const AscendC::GlobalTensor<int8_t>& pages, const PagePart& part,
                                 const AscendC::LocalTensor<int8_t>& page) {
  const Pieces of = PiecesOf(part);
  AscendC::DataCopyExtParams p;
  p.blockCount = static_cast<uint16_t>(of.many);
  p.blockLen = static_cast<uint32_t>(of.bytes);
  p.srcStride = static_cast<uint32_t>(of.gap / kBlock);
  p.dstStride = static_cast<uint32_t>(of.gap + of.head_gap);
  for (int32_t i = 0; i < of.copies; ++i)
    AscendC::DataCopyPad(pages[AddressOf(part, i)], page[static_cast<uint32_t>(i * part.blocks * kFractal)],
                         p);
}
__aicore__ inline void LoadPage(const AscendC::LocalTensor<int8_t>& page,
                                const AscendC::GlobalTensor<int8_t>& pages, const PagePart& part) {
  const Pieces of = PiecesOf(part);
  AscendC::DataCopyExtParams p;
  p.blockCount = static_cast<uint16_t>(of.many);
  p.blockLen = static_cast<uint32_t>(of.bytes);
  p.srcStride = static_cast<uint32_t>(of.gap + of.head_gap);
  p.dstStride = static_cast<uint32_t>(of.gap / kBlock);
  for (int32_t i = 0; i < of.copies; ++i)
    AscendC::DataCopyPad(page[static_cast<uint32_t>(i * part.blocks * kFractal)], pages[AddressOf(part, i)],
                         p, AscendC::DataCopyPadExtParams<int8_t>());
}

}  // namespace tw_kv
