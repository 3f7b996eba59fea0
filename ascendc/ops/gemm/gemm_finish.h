// A vector core's part behind a cube core: tiles of sums out of the ring become rows of C. Each of the two
// takes half of a tile's rows, in pieces; the next piece is on its way meanwhile. In fp32: sums (int32 ones
// rounded to the nearest) times the row's scale, times the column's, plus the bias, rounded once more to
// C's type.
//
// Tiles: the same walk as the cube core's. Rows: where rows of C lie (`Load` before a piece's arithmetic,
// `Store` behind it).
#pragma once

#include <type_traits>

#include "../_rows/rows.h"
#include "gemm_ring.h"

namespace tw_gemm {

using tw_rows::Tile;

// The rows of C that a walk counts, one after the other.
template <typename Out>
class DenseRows {
 public:
  __aicore__ inline DenseRows(GM_ADDR c, int32_t ldc) : ldc_(ldc) {
    c_.SetGlobalBuffer(reinterpret_cast<__gm__ Out*>(c));
  }
  __aicore__ inline void Load(int32_t, int32_t, int32_t) {}
  __aicore__ inline void Store(const LocalTensor<Out>& out, const Tile& s, int32_t, int32_t row,
                               int32_t column) {
    tw_rows::Store(c_[static_cast<uint64_t>(row) * ldc_ + column], out, s, ldc_);
  }

 private:
  GlobalTensor<Out> c_;
  const int32_t ldc_;
};

// What a tile's sums are multiplied with and what is added; null where there is nothing.
struct Factors {
  GM_ADDR row_scale;
  GM_ADDR col_scale;
  GM_ADDR bias;
};

template <typename Acc, typename Out, typename Tiles, typename Rows>
class Finish {
 public:
  // `room`: UB that is free.
  __aicore__ inline Finish(const TwGemmTiling& tiling, int32_t piece_rows, Rows& rows, tw_kv::Room& room)
      : t_(tiling), rows_(rows), most_(piece_rows), half_(static_cast<int32_t>(AscendC::GetSubBlockIdx())) {
    const int32_t count = most_ * t_.tile_n, whole = RoundUp(most_, 8);
    for (int32_t i = 0; i < 2; ++i) {
      in_[i] = room.Take<Acc>(count);
      out_[i] = room.Take<Out>(count);
    }
    room.Take<float>(64);  // operands of one instruction in different groups of banks
    if (kNarrow) work_ = room.Take<float>(count);
    for (int32_t i = 0; i < 2; ++i) {
      col_scale_[i] = room.Take<float>(t_.tile_n);
      bias_[i] = room.Take<float>(t_.tile_n);
      row_scale_[i] = room.Take<float>(whole);
    }
    spread_ = room.Take<float>(whole * CeilDiv(t_.tile_n, 64) * 8);
    for (int32_t i = 0; i < 2; ++i) {
      tw_rows::Clear(in_[i], count);
      tw_rows::Clear(col_scale_[i], t_.tile_n);
      tw_rows::Clear(bias_[i], t_.tile_n);
      tw_rows::Clear(row_scale_[i], whole);
    }
  }

  __aicore__ inline void Init(GM_ADDR workspace, const Factors& f) {
    const int32_t block = static_cast<int32_t>(AscendC::GetBlockIdx()) / 2;
    ring_ = RingOf<Acc>(workspace, t_, block);
    factors_ = f;
  }

  __aicore__ inline void Process(const Tiles& start) {
    Pieces loads, work;
    loads.Start(start, half_, most_);
    work = loads;
    tw_rows::OpenSlots();
    if (loads.Valid()) Load(loads);
    while (work.Valid()) {
      if (loads.Valid()) Load(loads);
      Work(work);
    }
    tw_rows::CloseSlots();
  }

 private:
  static constexpr bool kNarrow = sizeof(Out) != sizeof(float);

  // Pieces of this core's half of each tile; one without rows where a tile has a single row.
  struct Pieces {
    Tiles tiles;
    int32_t half = 0, most = 1;
    int32_t row = 0, begin = 0, end = 0;  // of the tile's rows
    uint32_t tile = 0, number = 0;        // tiles and pieces before this one

    __aicore__ inline void Start(const Tiles& start, int32_t which, int32_t rows) {
      tiles = start;
      half = which;
      most = rows;
      tile = number = 0;
      if (Valid()) Enter();
    }
    __aicore__ inline bool Valid() const { return tiles.Valid(); }
    __aicore__ inline int32_t Count() const { return Min(most, end - row); }
    __aicore__ inline void Next() {
      if (Count() > 0) ++number;
      row += most;
      if (row < end) return;
      ++tile;
      tiles.Next();
      if (Valid()) Enter();
    }
    __aicore__ inline bool First() const { return row == begin; }
    __aicore__ inline bool Last() const { return row + most >= end; }

   private:
    __aicore__ inline void Enter() {
      const int32_t rows = tiles.Now().rows, first = CeilDiv(rows, 2);
      row = begin = half == 0 ? 0 : first;
      end = half == 0 ? first : rows;
    }
  };

  __aicore__ inline void Load(Pieces& p) {
    const Spot& s = p.tiles.Now();
    const int32_t rows = p.Count(), slot = static_cast<int32_t>(p.number % 2);
    if (p.First()) AscendC::CrossCoreWaitFlag<2, PIPE_MTE2>(kTileReady);
    if (rows > 0) {
      const uint32_t from = p.tile % kRingSlots * static_cast<uint32_t>(t_.tile_m * t_.tile_n);
      WaitFlag<HardEvent::V_MTE2>(slot);
      tw_rows::Load(in_[slot], ring_[from + static_cast<uint32_t>(p.row * t_.tile_n)],
                    Tile{rows, s.columns, t_.tile_n}, t_.tile_n);
      const uint64_t column =
          static_cast<uint64_t>(s.matrix) * static_cast<uint64_t>(t_.n) + static_cast<uint64_t>(s.column);
      Vector(col_scale_[slot], factors_.col_scale, column, s.columns);
      Vector(bias_[slot], factors_.bias, column, s.columns);
      Vector(row_scale_[slot], factors_.row_scale, static_cast<uint64_t>(s.row + p.row), rows);
      rows_.Load(slot, s.row + p.row, rows);
      SetFlag<HardEvent::MTE2_V>(slot);
    }
    if (p.Last()) AscendC::CrossCoreSetFlag<2, PIPE_MTE2>(kTileFree);
    p.Next();
  }
  __aicore__ inline static void Vector(const LocalTensor<float>& dst, GM_ADDR from, uint64_t at,
                                       int32_t count) {
    if (from == nullptr) return;
    GlobalTensor<float> src;
    src.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(from));
    tw_rows::LoadRun(dst, src[at], count);
  }

  __aicore__ inline void Work(Pieces& p) {
    const Spot& s = p.tiles.Now();
    const int32_t rows = p.Count(), slot = static_cast<int32_t>(p.number % 2);
    if (rows > 0) {
      WaitFlag<HardEvent::MTE2_V>(slot);
      WaitFlag<HardEvent::MTE3_V>(slot);
      Compute(slot, rows);
      SetFlag<HardEvent::V_MTE2>(slot);
      SetFlag<HardEvent::V_MTE3>(slot);
      WaitFlag<HardEvent::V_MTE3>(slot);
      rows_.Store(out_[slot], Tile{rows, s.columns, t_.tile_n}, slot, s.row + p.row, s.column);
      SetFlag<HardEvent::MTE3_V>(slot);
    }
    p.Next();
  }

  __aicore__ inline LocalTensor<float> Work(int32_t slot) const {
    if constexpr (kNarrow)
      return work_;
    else
      return out_[slot];
  }
  __aicore__ inline void Compute(int32_t slot, int32_t rows) {
    const tw_kv::Shape shape{rows, 1, 1, t_.tile_n, t_.tile_n};
    const LocalTensor<float> work = Work(slot);
    const uint32_t count = static_cast<uint32_t>(rows * t_.tile_n);
    if constexpr (std::is_same_v<Acc, int32_t>)
      AscendC::Cast(work, in_[slot], AscendC::RoundMode::CAST_RINT, count);
    else
      AscendC::Adds(work, in_[slot], 0.0f, static_cast<int32_t>(count));
    if (factors_.row_scale != nullptr) tw_kv::SpreadRows(spread_, row_scale_[slot], shape);
    tw_kv::Fence();
    if (factors_.row_scale != nullptr) {
      tw_kv::ByRow<tw_kv::Mul2>(work, work, spread_, shape);
      tw_kv::Fence();
    }
    if (factors_.col_scale != nullptr) {
      tw_kv::ByChannel<tw_kv::Mul2>(work, work, col_scale_[slot], shape);
      tw_kv::Fence();
    }
    if (factors_.bias != nullptr) {
      tw_kv::ByChannel<tw_kv::Add2>(work, work, bias_[slot], shape);
      tw_kv::Fence();
    }
    if constexpr (kNarrow) {
      AscendC::Cast(out_[slot], work, AscendC::RoundMode::CAST_RINT, count);
      tw_kv::Fence();
    }
  }

  const TwGemmTiling& t_;
  Rows& rows_;
  const int32_t most_, half_;
  Factors factors_{};
  GlobalTensor<Acc> ring_;
  LocalTensor<Acc> in_[2];
  LocalTensor<Out> out_[2];
  LocalTensor<float> work_, spread_, col_scale_[2], bias_[2], row_scale_[2];
};

}  // namespace tw_gemm
