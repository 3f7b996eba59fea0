// Tokens [T, heads, D] into and out of pages in Ascend's fractals, one source for CANN and for the twin.
//
// A page holds 16 tokens as [heads, ceil(D/C0), 16, C0], C0 elements filling 32 bytes. Tokens that fill a page
// one after the other are found in the slots and move together: rows come into UB as they lie, the vector unit
// turns blocks of 32 bytes, 8 a cycle, and a page leaves in one contiguous piece. Rows lie an odd number of
// blocks apart in UB: the eight blocks that one repeat touches then fall into eight groups of banks. Runs that
// fill only a part of a page write 32 bytes a token and column, no other token's.
//
// Elements are bytes here: the same kernels serve every type.
#include "../_kv/slots.h"
#include "kernel_operator.h"
#include "nz_kv_tiling.h"

namespace {

using AscendC::GlobalTensor;
using AscendC::HardEvent;
using AscendC::LocalTensor;
using AscendC::SetFlag;
using AscendC::TPosition;
using AscendC::WaitFlag;
using namespace tw_kv;

constexpr int32_t kHalfPage = kPage / 2;  // blocks of one repeat
constexpr int32_t kLanes = kBlock / 2;    // of 16 bits in a block

// Whole heads, or a part of one.
struct Tile {
  int32_t head, heads;
  int32_t block, blocks;  // of 32 bytes, of each head
  int32_t bytes;          // of them that are no padding
  __aicore__ inline int32_t columns() const { return heads * blocks; }
  __aicore__ inline int32_t pitch() const { return columns() | 1; }  // blocks from one token's row to the next
};

class Turn {
 public:
  __aicore__ inline Turn() {}

  __aicore__ inline void Init(GM_ADDR rows, GM_ADDR slots, GM_ADDR pages, GM_ADDR tiling) {
    ReadTiling(tiling, t_);
    rows_.SetGlobalBuffer(reinterpret_cast<__gm__ int8_t*>(rows));
    pages_.SetGlobalBuffer(reinterpret_cast<__gm__ int8_t*>(pages));
    head_blocks_ = CeilDiv(t_.head_bytes, kBlock);
    parts_of_head_ = CeilDiv(head_blocks_, t_.tile_blocks);
    const int32_t block = static_cast<int32_t>(AscendC::GetBlockIdx());
    const int32_t tiles =
        parts_of_head_ > 1 ? t_.heads * parts_of_head_ : CeilDiv(t_.heads, t_.tile_heads);
    tiles_ = ShareOf(tiles, t_.tile_parts, block % t_.tile_parts);
    runs_.Init(slots, t_.tokens, t_.token_parts, block / t_.tile_parts);
    const int32_t columns = t_.tile_heads * t_.tile_blocks;
    const uint32_t row_bytes = static_cast<uint32_t>(kPage * (columns | 1) * kBlock),
                   page_bytes = static_cast<uint32_t>(columns * kFractal);
    uint32_t at = 0;
    for (int32_t i = 0; i < 2; ++i, at += row_bytes)
      row_[i] = LocalTensor<int8_t>(TPosition::VECIN, at, row_bytes);
    for (int32_t i = 0; i < 2; ++i, at += page_bytes)
      page_[i] = LocalTensor<int8_t>(TPosition::VECOUT, at, page_bytes);
  }

  template <bool kWrite>
  __aicore__ inline void Process() {
    for (int32_t i = 0; i < 2; ++i) {
      SetFlag<HardEvent::V_MTE2>(i);
      SetFlag<HardEvent::MTE3_V>(i);
    }
    Run run;
    int32_t slot = 0;
    while (runs_.Next(run)) {
      if (kWrite && run.slot < 0) continue;
      for (int32_t i = tiles_.begin; i < tiles_.end; ++i, slot ^= 1) {
        const Tile tile = TileAt(i);
        if (run.slot < 0)
          Clear(run, tile, slot);
        else if (kWrite)
          Write(run, tile, slot);
        else
          Read(run, tile, slot);
      }
    }
    for (int32_t i = 0; i < 2; ++i) {
      WaitFlag<HardEvent::V_MTE2>(i);
      WaitFlag<HardEvent::MTE3_V>(i);
    }
    AscendC::PipeBarrier<PIPE_ALL>();
  }

 private:
  __aicore__ inline Tile TileAt(int32_t i) const {
    if (parts_of_head_ == 1) {
      const int32_t head = i * t_.tile_heads;
      return {head, Min(t_.tile_heads, t_.heads - head), 0, head_blocks_, t_.head_bytes};
    }
    const int32_t block = i % parts_of_head_ * t_.tile_blocks;
    const int32_t blocks = Min(t_.tile_blocks, head_blocks_ - block);
    return {i / parts_of_head_, 1, block, blocks, Min(blocks * kBlock, t_.head_bytes - block * kBlock)};
  }

  // Rows of tokens -> UB -> fractals of one page.
  __aicore__ inline void Write(const Run& run, const Tile& tile, int32_t slot) {
    WaitFlag<HardEvent::V_MTE2>(slot);
    LoadRows(run, tile, slot);
    SetFlag<HardEvent::MTE2_V>(slot);
    WaitFlag<HardEvent::MTE2_V>(slot);
    WaitFlag<HardEvent::MTE3_V>(slot);
    TurnBlocks<true>(run.count, tile, slot);
    SetFlag<HardEvent::V_MTE2>(slot);
    SetFlag<HardEvent::V_MTE3>(slot);
    WaitFlag<HardEvent::V_MTE3>(slot);
    StorePage(run, tile, slot);
    SetFlag<HardEvent::MTE3_V>(slot);
  }
  // Fractals of one page -> UB -> rows of tokens.
  __aicore__ inline void Read(const Run& run, const Tile& tile, int32_t slot) {
    WaitFlag<HardEvent::V_MTE2>(slot);
    LoadPage(run, tile, slot);
    SetFlag<HardEvent::MTE2_V>(slot);
    WaitFlag<HardEvent::MTE2_V>(slot);
    WaitFlag<HardEvent::MTE3_V>(slot);
    TurnBlocks<false>(run.count, tile, slot);
    SetFlag<HardEvent::V_MTE2>(slot);
    SetFlag<HardEvent::V_MTE3>(slot);
    WaitFlag<HardEvent::V_MTE3>(slot);
    StoreRows(run, tile, slot);
    SetFlag<HardEvent::MTE3_V>(slot);
  }
  // Rows of skipped tokens read as zero.
  __aicore__ inline void Clear(const Run& run, const Tile& tile, int32_t slot) {
    WaitFlag<HardEvent::MTE3_V>(slot);
    AscendC::Duplicate(row_[slot].ReinterpretCast<int16_t>(), static_cast<int16_t>(0),
                       run.count * tile.pitch() * kLanes);
    SetFlag<HardEvent::V_MTE3>(slot);
    WaitFlag<HardEvent::V_MTE3>(slot);
    StoreRows(run, tile, slot);
    SetFlag<HardEvent::MTE3_V>(slot);
  }

  // Eight tokens of a column a repeat, one column after the other.
  template <bool kWrite>
  __aicore__ inline void TurnBlocks(int32_t tokens, const Tile& tile, int32_t slot) {
    const uint16_t pitch = static_cast<uint16_t>(tile.pitch());
    for (int32_t first = 0; first < tokens; first += kHalfPage) {
      const LocalTensor<int16_t> row =
          row_[slot][static_cast<uint32_t>(first * pitch * kBlock)].ReinterpretCast<int16_t>();
      const LocalTensor<int16_t> page =
          page_[slot][static_cast<uint32_t>(first * kBlock)].ReinterpretCast<int16_t>();
      const uint64_t lanes = static_cast<uint64_t>(Min(kHalfPage, tokens - first) * kLanes);
      const uint8_t repeats = static_cast<uint8_t>(tile.columns());
      if (kWrite)
        AscendC::Copy(page, row, lanes, repeats, AscendC::CopyRepeatParams(1, pitch, kPage, 1));
      else
        AscendC::Copy(row, page, lanes, repeats, AscendC::CopyRepeatParams(pitch, 1, 1, kPage));
    }
  }

  // A token's part of the tile is one piece in memory, without padding.
  __aicore__ inline bool Dense(const Tile& tile) const {
    return tile.bytes == tile.blocks * kBlock && (tile.heads == 1 || t_.head_stride == tile.bytes);
  }
  __aicore__ inline GlobalTensor<int8_t> RowAt(int32_t token, const Tile& tile) const {
    return rows_[static_cast<uint64_t>(token) * t_.row_stride +
                 static_cast<uint64_t>(tile.head) * t_.head_stride + tile.block * kBlock];
  }
  __aicore__ inline void LoadRows(const Run& run, const Tile& tile, int32_t slot) {
    AscendC::DataCopyExtParams p;
    if (Dense(tile)) {
      p.blockCount = static_cast<uint16_t>(run.count);
      p.blockLen = static_cast<uint32_t>(tile.columns() * kBlock);
      p.srcStride = static_cast<uint32_t>(t_.row_stride) - p.blockLen;
      p.dstStride = static_cast<uint32_t>(tile.pitch() - tile.columns());
      AscendC::DataCopyPad(row_[slot], RowAt(run.token, tile), p, AscendC::DataCopyPadExtParams<int8_t>());
      return;
    }
    p.blockCount = static_cast<uint16_t>(tile.heads);
    p.blockLen = static_cast<uint32_t>(tile.bytes);
    p.srcStride = static_cast<uint32_t>(t_.head_stride - tile.bytes);
    const AscendC::DataCopyPadExtParams<int8_t> zeros(
        true, 0, static_cast<uint8_t>(tile.blocks * kBlock - tile.bytes), 0);
    for (int32_t i = 0; i < run.count; ++i)
      AscendC::DataCopyPad(row_[slot][static_cast<uint32_t>(i * tile.pitch() * kBlock)],
                           RowAt(run.token + i, tile), p, zeros);
  }
  __aicore__ inline void StoreRows(const Run& run, const Tile& tile, int32_t slot) {
    AscendC::DataCopyExtParams p;
    if (Dense(tile)) {
      p.blockCount = static_cast<uint16_t>(run.count);
      p.blockLen = static_cast<uint32_t>(tile.columns() * kBlock);
      p.srcStride = static_cast<uint32_t>(tile.pitch() - tile.columns());
      p.dstStride = static_cast<uint32_t>(t_.row_stride) - p.blockLen;
      AscendC::DataCopyPad(RowAt(run.token, tile), row_[slot], p);
      return;
    }
    p.blockCount = static_cast<uint16_t>(tile.heads);
    p.blockLen = static_cast<uint32_t>(tile.bytes);
    p.dstStride = static_cast<uint32_t>(t_.head_stride - tile.bytes);
    for (int32_t i = 0; i < run.count; ++i)
      AscendC::DataCopyPad(RowAt(run.token + i, tile),
                           row_[slot][static_cast<uint32_t>(i * tile.pitch() * kBlock)], p);
  }

  __aicore__ inline GlobalTensor<int8_t> PageAt(const Run& run, int32_t head, const Tile& tile) const {
    return pages_[static_cast<uint64_t>(run.slot / kPage) * t_.page_stride +
                  static_cast<uint64_t>(head) * t_.page_head_stride + tile.block * kFractal +
                  run.slot % kPage * kBlock];
  }
  // Copies of a tile's part of a page: `many` pieces of `bytes`, one a head if heads lie apart. `gap` bytes
  // lie between pieces in the page, `gap` / 32 blocks in UB; zero for a whole page.
  struct Pieces {
    int32_t groups;         // copies, of one head each if more than one
    int32_t many, bytes, gap, head_gap;
  };
  __aicore__ inline Pieces PiecesOf(const Run& run, const Tile& tile) const {
    const bool close = tile.heads == 1 || t_.page_head_stride == tile.blocks * kFractal;
    if (run.count == kPage) {
      if (close) return {1, 1, tile.columns() * kFractal, 0, 0};
      return {1, tile.heads, tile.blocks * kFractal, 0, t_.page_head_stride - tile.blocks * kFractal};
    }
    return {close ? 1 : tile.heads, close ? tile.columns() : tile.blocks, run.count * kBlock,
            (kPage - run.count) * kBlock, 0};
  }
  __aicore__ inline void StorePage(const Run& run, const Tile& tile, int32_t slot) {
    const Pieces of = PiecesOf(run, tile);
    AscendC::DataCopyExtParams p;
    p.blockCount = static_cast<uint16_t>(of.many);
    p.blockLen = static_cast<uint32_t>(of.bytes);
    p.srcStride = static_cast<uint32_t>(of.gap / kBlock);
    p.dstStride = static_cast<uint32_t>(of.gap + of.head_gap);
    for (int32_t i = 0; i < of.groups; ++i)
      AscendC::DataCopyPad(PageAt(run, tile.head + i, tile),
                           page_[slot][static_cast<uint32_t>(i * tile.blocks * kFractal)], p);
  }
  __aicore__ inline void LoadPage(const Run& run, const Tile& tile, int32_t slot) {
    const Pieces of = PiecesOf(run, tile);
    AscendC::DataCopyExtParams p;
    p.blockCount = static_cast<uint16_t>(of.many);
    p.blockLen = static_cast<uint32_t>(of.bytes);
    p.srcStride = static_cast<uint32_t>(of.gap + of.head_gap);
    p.dstStride = static_cast<uint32_t>(of.gap / kBlock);
    for (int32_t i = 0; i < of.groups; ++i)
      AscendC::DataCopyPad(page_[slot][static_cast<uint32_t>(i * tile.blocks * kFractal)],
                           PageAt(run, tile.head + i, tile), p, AscendC::DataCopyPadExtParams<int8_t>());
  }

  TwNzKvTiling t_;
  GlobalTensor<int8_t> rows_, pages_;
  LocalTensor<int8_t> row_[2], page_[2];
  Runs runs_;
  Share tiles_;
  int32_t head_blocks_, parts_of_head_;
};

}  // namespace

extern "C" __global__ __aicore__ void nz_kv_write(GM_ADDR x, GM_ADDR slots, GM_ADDR pages, GM_ADDR tiling) {
  Turn turn;
  turn.Init(x, slots, pages, tiling);
  turn.Process<true>();
}

extern "C" __global__ __aicore__ void nz_kv_read(GM_ADDR y, GM_ADDR slots, GM_ADDR pages, GM_ADDR tiling) {
  Turn turn;
  turn.Init(y, slots, pages, tiling);
  turn.Process<false>();
}
