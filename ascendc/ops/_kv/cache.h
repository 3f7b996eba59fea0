// A tile's codes on their way to and from pages, which are rows [16, heads, bytes] or fractals.
#pragma once

#include "fractals.h"
#include "rows.h"

namespace tw_kv {

// The shape of rows of D elements as fp32 in UB. Where 32 does not divide D, codes of 8 bits pad a head to
// whole blocks of them, and codes of 4 bits each quarter of a head, whose elements share lanes.
__aicore__ inline Shape ShapeOf(int32_t tokens, int32_t heads, int32_t dim, bool quarters) {
  if (dim % kBlock == 0 || !quarters) return {tokens, heads, 1, dim, RoundUp(dim, kBlock)};
  return {tokens, heads, 4, dim / 4, RoundUp(dim / 4, kLanes)};
}

// Bytes of a head's codes: one segment of lanes or bytes; `split` has bytes in four, for rows only.
struct CodeBytes {
  int32_t segments, valid, padded;
  __aicore__ inline CodeBytes(int32_t dim, bool four, bool split = false) {
    segments = split ? 4 : 1;
    valid = four ? dim / 2 : dim / segments;
    padded = RoundUp(valid, kBlock);
  }
  __aicore__ inline int32_t row() const { return segments * padded; }
  __aicore__ inline Shape shape(int32_t tokens, int32_t heads) const {
    return {tokens, heads, segments, valid, padded};
  }
};

class Cache {
 public:
  __aicore__ inline Cache() {}
  __aicore__ inline void Init(GM_ADDR pages, int32_t page_stride, int32_t within_stride, bool nz) {
    pages_.SetGlobalBuffer(reinterpret_cast<__gm__ int8_t*>(pages));
    page_stride_ = page_stride;
    within_stride_ = within_stride;
    nz_ = nz;
  }
  // Bytes from one token's codes to the next where the encoder leaves them.
  __aicore__ inline int32_t Pitch(int32_t heads, const CodeBytes& bytes) const {
    const int32_t blocks = heads * bytes.row() / kBlock;
    return (nz_ ? OddPitch(blocks) : blocks) * kBlock;
  }
  __aicore__ inline bool nz() const { return nz_; }

  // On pipe MTE3: `codes` are rows (nd), or fractals (nz) that TurnBlocks made of them.
  __aicore__ inline void Store(int32_t slot, int32_t tokens, int32_t head, int32_t heads,
                               const CodeBytes& bytes, const AscendC::LocalTensor<int8_t>& codes) const {
    if (nz_) {
      StorePage(pages_, PartOf(slot, tokens, head, heads, bytes), codes);
      return;
    }
    StoreRows(pages_[RowOf(slot, head, bytes)], codes, bytes.shape(tokens, heads),
              {within_stride_, bytes.segments * bytes.valid}, heads * bytes.row());
  }
  // On pipe MTE2: rows (nd) or fractals (nz).
  __aicore__ inline void Load(const AscendC::LocalTensor<int8_t>& codes, int32_t slot, int32_t tokens,
                              int32_t head, int32_t heads, const CodeBytes& bytes) const {
    if (nz_) {
      LoadPage(codes, pages_, PartOf(slot, tokens, head, heads, bytes));
      return;
    }
    LoadRows(codes, pages_[RowOf(slot, head, bytes)], bytes.shape(tokens, heads),
             {within_stride_, bytes.segments * bytes.valid}, heads * bytes.row());
  }

 private:
  __aicore__ inline PagePart PartOf(int32_t slot, int32_t tokens, int32_t head, int32_t heads,
                                    const CodeBytes& bytes) const {
    const uint64_t at =
        static_cast<uint64_t>(slot / kPage) * page_stride_ + static_cast<uint64_t>(head) * within_stride_;
    return {at, slot % kPage, tokens, heads, bytes.padded / kBlock, within_stride_};
  }
  __aicore__ inline uint64_t RowOf(int32_t slot, int32_t head, const CodeBytes& bytes) const {
    return static_cast<uint64_t>(slot / kPage) * page_stride_ +
           static_cast<uint64_t>(slot % kPage) * within_stride_ +
           static_cast<uint64_t>(head) * bytes.segments * bytes.valid;
  }

  AscendC::GlobalTensor<int8_t> pages_;
  int32_t page_stride_, within_stride_;
  bool nz_;
};

// One number a row of a tile, to [tokens, all heads] from `at` on. `dense` has them one after the other,
// `spread` one a block: rows of some of the heads start within a block otherwise.
template <typename T>
__aicore__ inline void StoreNumbers(const AscendC::GlobalTensor<T>& at, const AscendC::LocalTensor<T>& dense,
                                    const AscendC::LocalTensor<T>& spread, const Shape& s, int32_t all) {
  AscendC::DataCopyExtParams p;
  if (s.heads == all || s.tokens == 1) {
    p.blockLen = static_cast<uint32_t>(s.rows() * static_cast<int32_t>(sizeof(T)));
    AscendC::DataCopyPad(at, dense, p);
    return;
  }
  p.blockCount = static_cast<uint16_t>(s.heads);
  p.blockLen = sizeof(T);
  for (int32_t i = 0; i < s.tokens; ++i)
    AscendC::DataCopyPad(at[static_cast<uint64_t>(i) * all],
                         spread[static_cast<uint32_t>(i * s.heads * kBlock) / sizeof(T)], p);
}

}  // namespace tw_kv
