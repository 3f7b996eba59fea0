// Rows of a path where their numbers lie scattered: gathered into the workspace before the product, placed
// into C behind it. Numbers rise, so that rows whose first and last are as far apart as there are rows lie
// in one piece, and are one copy.
#pragma once

#include "../gemm/gemm_finish.h"
#include "paths.h"

namespace tw_mask {

using tw_rows::Tile;

__aicore__ inline bool OnePiece(const LocalTensor<int32_t>& numbers, int32_t count) {
  return numbers.GetValue(static_cast<uint32_t>(count - 1)) - numbers.GetValue(0) == count - 1;
}

// Copies rows of bytes to the places of their turn.
class Gatherer {
 public:
  __aicore__ inline explicit Gatherer(Room& room) {
    for (int32_t i = 0; i < 2; ++i) {
      rows_[i] = room.Take<int8_t>(kTileBytes);
      numbers_[i] = room.Take<int32_t>(kMostRows);
    }
  }

  // This core's share of `count` rows of `bytes`, by their numbers: from rows `apart` bytes apart to rows
  // `pitch` bytes apart.
  __aicore__ inline void Gather(GM_ADDR from, int32_t bytes, int64_t apart, GM_ADDR numbers, int32_t count,
                                GM_ADDR to, int32_t pitch, int32_t parts, int32_t part) {
    const Share own = ShareOf(count, parts, part);
    const int32_t piece = Min(bytes, kTileBytes);
    const int32_t most = Min(kMostRows, kTileBytes / RoundUp(piece, kBlock));
    GlobalTensor<int32_t> list;
    list.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(numbers));
    for (int32_t i = 0; i < 2; ++i) SetFlag<HardEvent::MTE3_MTE2>(i);
    for (int32_t row = own.begin; row < own.end; row += most) {
      const int32_t rows = Min(most, own.end - row);
      for (int32_t column = 0; column < bytes; column += piece) {
        const Tile tile{rows, Min(piece, bytes - column), RoundUp(piece, kBlock)};
        WaitFlag<HardEvent::MTE3_MTE2>(slot_);
        tw_rows::LoadRun(numbers_[slot_], list[static_cast<uint32_t>(row)], rows);
        SetFlag<HardEvent::MTE2_S>(slot_);
        WaitFlag<HardEvent::MTE2_S>(slot_);
        LoadRows(from + column, apart, tile);
        SetFlag<HardEvent::MTE2_MTE3>(slot_);
        WaitFlag<HardEvent::MTE2_MTE3>(slot_);
        tw_rows::Store(Bytes(to + static_cast<int64_t>(row) * pitch + column), rows_[slot_], tile, pitch);
        SetFlag<HardEvent::MTE3_MTE2>(slot_);
        slot_ ^= 1;
      }
    }
    for (int32_t i = 0; i < 2; ++i) WaitFlag<HardEvent::MTE3_MTE2>(i);
  }

 private:
  static constexpr int32_t kTileBytes = 64 * 1024, kMostRows = 128;

  __aicore__ inline static GlobalTensor<int8_t> Bytes(GM_ADDR at) {
    GlobalTensor<int8_t> bytes;
    bytes.SetGlobalBuffer(reinterpret_cast<__gm__ int8_t*>(at));
    return bytes;
  }
  __aicore__ inline void LoadRows(GM_ADDR from, int64_t apart, const Tile& s) {
    const LocalTensor<int32_t>& numbers = numbers_[slot_];
    if (OnePiece(numbers, s.rows)) {
      GM_ADDR first = from + numbers.GetValue(0) * apart;
      tw_rows::Load(rows_[slot_], Bytes(first), s, static_cast<int32_t>(apart));
      return;
    }
    for (int32_t i = 0; i < s.rows; ++i) {
      GM_ADDR row = from + numbers.GetValue(static_cast<uint32_t>(i)) * apart;
      tw_rows::Load(rows_[slot_][static_cast<uint32_t>(i * s.pitch)], Bytes(row), {1, s.cols, s.pitch}, 0);
    }
  }

  LocalTensor<int8_t> rows_[2];
  LocalTensor<int32_t> numbers_[2];
  int32_t slot_ = 0;
};

// The rows of C that a path's products belong to, for `tw_gemm::Finish`; without numbers, as they come.
class PlacedRows {
 public:
  __aicore__ inline PlacedRows(GM_ADDR c, int32_t ldc, GM_ADDR numbers, int32_t piece_rows, Room& room)
      : ldc_(ldc), listed_(numbers != nullptr) {
    c_.SetGlobalBuffer(reinterpret_cast<__gm__ bfloat16_t*>(c));
    list_.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(numbers));
    for (int32_t i = 0; i < 2; ++i) numbers_[i] = room.Take<int32_t>(piece_rows);
  }

  __aicore__ inline void Load(int32_t slot, int32_t first, int32_t count) {
    if (!listed_) return;
    tw_rows::LoadRun(numbers_[slot], list_[static_cast<uint32_t>(first)], count);
    SetFlag<HardEvent::MTE2_S>(slot);
  }
  __aicore__ inline void Store(const LocalTensor<bfloat16_t>& out, const Tile& s, int32_t slot, int32_t first,
                               int32_t column) {
    if (!listed_) return Rows(out, s, first, column);
    const LocalTensor<int32_t>& numbers = numbers_[slot];
    WaitFlag<HardEvent::MTE2_S>(slot);
    if (OnePiece(numbers, s.rows)) return Rows(out, s, numbers.GetValue(0), column);
    for (int32_t i = 0; i < s.rows; ++i)
      Rows(out[static_cast<uint32_t>(i * s.pitch)], {1, s.cols, s.pitch},
           numbers.GetValue(static_cast<uint32_t>(i)), column);
  }

 private:
  __aicore__ inline void Rows(const LocalTensor<bfloat16_t>& out, const Tile& s, int32_t row,
                              int32_t column) {
    const int64_t at = static_cast<int64_t>(row) * ldc_ + column;
    tw_rows::Store(c_[static_cast<uint64_t>(at)], out, s, ldc_);
  }

  GlobalTensor<bfloat16_t> c_;
  GlobalTensor<int32_t> list_;
  LocalTensor<int32_t> numbers_[2];
  const int32_t ldc_;
  const bool listed_;
};

}  // namespace tw_mask
