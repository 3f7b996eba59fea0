// Tokens as they are, between rows [T, heads, D] and pages, by slots. Elements are bytes here: the same code
// serves every type.
//
// Tokens that fill a page one after the other move together: rows come into UB as they lie, the vector unit
// turns blocks of 32 bytes, eight a cycle, and a page leaves in one contiguous piece. Copies of one tile run
// while another is turned.
#pragma once

#include "fractals.h"
#include "move_tiling.h"
#include "rows.h"

namespace tw_kv {

class Mover {
 public:
  __aicore__ inline Mover() {}

  __aicore__ inline void Init(GM_ADDR rows, GM_ADDR slots, GM_ADDR pages, const TwMoveTiling& tiling) {
    t_ = tiling;
    slots_ = slots;
    rows_.SetGlobalBuffer(reinterpret_cast<__gm__ int8_t*>(rows));
    pages_.SetGlobalBuffer(reinterpret_cast<__gm__ int8_t*>(pages));
    head_blocks_ = CeilDiv(t_.head_bytes, kBlock);
    parts_of_head_ = CeilDiv(head_blocks_, t_.tile_blocks);
    const int32_t block = static_cast<int32_t>(AscendC::GetBlockIdx());
    const int32_t tiles = parts_of_head_ > 1 ? t_.heads * parts_of_head_ : CeilDiv(t_.heads, t_.tile_heads);
    tiles_ = ShareOf(tiles, t_.tile_parts, block % t_.tile_parts);
    part_ = block / t_.tile_parts;
    const int32_t columns = t_.tile_heads * t_.tile_blocks;
    const uint32_t row_bytes = static_cast<uint32_t>(kPage * OddPitch(columns) * kBlock),
                   page_bytes = static_cast<uint32_t>(columns * kFractal);
    uint32_t at = 0;
    for (int32_t i = 0; i < 2; ++i, at += row_bytes)
      row_[i] = AscendC::LocalTensor<int8_t>(AscendC::TPosition::VECIN, at, row_bytes);
    if (t_.nz == 0) return;
    for (int32_t i = 0; i < 2; ++i, at += page_bytes)
      page_[i] = AscendC::LocalTensor<int8_t>(AscendC::TPosition::VECOUT, at, page_bytes);
  }

  // Rows to pages.
  __aicore__ inline void Write() {
    if (t_.nz != 0)
      ByVector<true>();
    else
      Straight();
    AscendC::PipeBarrier<PIPE_ALL>();
  }
  // Pages in fractals to rows.
  __aicore__ inline void Read() {
    ByVector<false>();
    AscendC::PipeBarrier<PIPE_ALL>();
  }

 private:
  // Whole heads, or a part of one.
  struct Tile {
    int32_t head, block;  // the first ones
    Shape shape;          // in bytes: one segment a head
    __aicore__ inline int32_t columns() const { return shape.width() / kBlock; }
    __aicore__ inline int32_t pitch() const { return OddPitch(columns()); }
  };
  __aicore__ inline Tile TileAt(int32_t i, int32_t tokens) const {
    if (parts_of_head_ == 1) {
      const int32_t head = i * t_.tile_heads, heads = Min(t_.tile_heads, t_.heads - head);
      return {head, 0, {tokens, heads, 1, t_.head_bytes, head_blocks_ * kBlock}};
    }
    const int32_t block = i % parts_of_head_ * t_.tile_blocks;
    const int32_t blocks = Min(t_.tile_blocks, head_blocks_ - block);
    const int32_t bytes = Min(blocks * kBlock, t_.head_bytes - block * kBlock);
    return {i / parts_of_head_, block, {tokens, 1, 1, bytes, blocks * kBlock}};
  }

  template <bool kWrite>
  __aicore__ inline void ByVector() {
    using AscendC::HardEvent;
    for (int32_t i = 0; i < 2; ++i) {
      AscendC::SetFlag<HardEvent::V_MTE2>(i);
      AscendC::SetFlag<HardEvent::MTE3_V>(i);
    }
    Runs runs;
    runs.Init(slots_, t_.tokens, t_.token_parts, part_);
    Run run;
    int32_t slot = 0;
    while (runs.Next(run)) {
      if (kWrite && run.slot < 0) continue;
      for (int32_t i = tiles_.begin; i < tiles_.end; ++i, slot ^= 1) {
        const Tile tile = TileAt(i, run.count);
        if (run.slot < 0)
          Clear(run, tile, slot);
        else
          Turn<kWrite>(run, tile, slot);
      }
    }
    for (int32_t i = 0; i < 2; ++i) {
      AscendC::WaitFlag<HardEvent::V_MTE2>(i);
      AscendC::WaitFlag<HardEvent::MTE3_V>(i);
    }
  }

  template <bool kWrite>
  __aicore__ inline void Turn(const Run& run, const Tile& tile, int32_t slot) {
    using AscendC::HardEvent;
    AscendC::WaitFlag<HardEvent::V_MTE2>(slot);
    if (kWrite)
      LoadRows(row_[slot], rows_[RowAt(run, tile)], tile.shape, Apart(), tile.pitch() * kBlock);
    else
      LoadPage(page_[slot], pages_, PartOf(run, tile));
    AscendC::SetFlag<HardEvent::MTE2_V>(slot);
    AscendC::WaitFlag<HardEvent::MTE2_V>(slot);
    AscendC::WaitFlag<HardEvent::MTE3_V>(slot);
    TurnBlocks<kWrite>(row_[slot], page_[slot], run.count, tile.columns(), tile.pitch());
    AscendC::SetFlag<HardEvent::V_MTE2>(slot);
    AscendC::SetFlag<HardEvent::V_MTE3>(slot);
    AscendC::WaitFlag<HardEvent::V_MTE3>(slot);
    if (kWrite)
      StorePage(pages_, PartOf(run, tile), page_[slot]);
    else
      StoreRows(rows_[RowAt(run, tile)], row_[slot], tile.shape, Apart(), tile.pitch() * kBlock);
    AscendC::SetFlag<HardEvent::MTE3_V>(slot);
  }
  // Rows of skipped tokens read as zero.
  __aicore__ inline void Clear(const Run& run, const Tile& tile, int32_t slot) {
    using AscendC::HardEvent;
    AscendC::WaitFlag<HardEvent::MTE3_V>(slot);
    AscendC::Duplicate(row_[slot].ReinterpretCast<int16_t>(), static_cast<int16_t>(0),
                       run.count * tile.pitch() * kLanes);
    AscendC::SetFlag<HardEvent::V_MTE3>(slot);
    AscendC::WaitFlag<HardEvent::V_MTE3>(slot);
    StoreRows(rows_[RowAt(run, tile)], row_[slot], tile.shape, Apart(), tile.pitch() * kBlock);
    AscendC::SetFlag<HardEvent::MTE3_V>(slot);
  }

  // Pages of rows: in and out, nothing is turned.
  __aicore__ inline void Straight() {
    using AscendC::HardEvent;
    for (int32_t i = 0; i < 2; ++i) AscendC::SetFlag<HardEvent::MTE3_MTE2>(i);
    Runs runs;
    runs.Init(slots_, t_.tokens, t_.token_parts, part_);
    Run run;
    int32_t slot = 0;
    while (runs.Next(run)) {
      if (run.slot < 0) continue;
      for (int32_t i = tiles_.begin; i < tiles_.end; ++i, slot ^= 1) {
        const Tile tile = TileAt(i, run.count);
        const uint64_t to = static_cast<uint64_t>(run.slot / kPage) * t_.page_stride +
                            static_cast<uint64_t>(run.slot % kPage) * t_.page_head_stride +
                            static_cast<uint64_t>(tile.head) * t_.head_bytes + tile.block * kBlock;
        AscendC::WaitFlag<HardEvent::MTE3_MTE2>(slot);
        LoadRows(row_[slot], rows_[RowAt(run, tile)], tile.shape, Apart(), tile.shape.width());
        AscendC::SetFlag<HardEvent::MTE2_MTE3>(slot);
        AscendC::WaitFlag<HardEvent::MTE2_MTE3>(slot);
        StoreRows(pages_[to], row_[slot], tile.shape, {t_.page_head_stride, t_.head_bytes},
                  tile.shape.width());
        AscendC::SetFlag<HardEvent::MTE3_MTE2>(slot);
      }
    }
    for (int32_t i = 0; i < 2; ++i) AscendC::WaitFlag<HardEvent::MTE3_MTE2>(i);
  }

  __aicore__ inline uint64_t RowAt(const Run& run, const Tile& tile) const {
    return static_cast<uint64_t>(run.token) * t_.row_stride +
           static_cast<uint64_t>(tile.head) * t_.head_stride + tile.block * kBlock;
  }
  __aicore__ inline Strides Apart() const { return {t_.row_stride, t_.head_stride}; }
  __aicore__ inline PagePart PartOf(const Run& run, const Tile& tile) const {
    const uint64_t at = static_cast<uint64_t>(run.slot / kPage) * t_.page_stride +
                        static_cast<uint64_t>(tile.head) * t_.page_head_stride +
                        static_cast<uint64_t>(tile.block * kFractal);
    return {
        at, run.slot % kPage, run.count, tile.shape.heads, tile.shape.row() / kBlock, t_.page_head_stride};
  }

  TwMoveTiling t_;
  GM_ADDR slots_;
  AscendC::GlobalTensor<int8_t> rows_, pages_;
  AscendC::LocalTensor<int8_t> row_[2], page_[2];
  Share tiles_;
  int32_t part_, head_blocks_, parts_of_head_;
};

}  // namespace tw_kv
