// Which vectors get residuals or stay in float, and where their rows lie in the pools.
//
// Work is dealt out in units, some heads of one page, in the order in which pools are filled. Each core turns
// the selection of its units into masks, 16 tokens of all heads at a time, and counts their bits; cores tell
// each other their sums and meet; then each knows where its own first row lies. The vector unit has no count
// of set bits, the scalar unit has one (ScalarGetCountOfValue), and so it walks through masks too
// (ScalarGetSFFValue).
#pragma once

#include "../_kv/lanes.h"
#include "kv_residual_tiling.h"

namespace tw_kv {

constexpr int32_t kMaskHeads = 32;  // of a tile at most: one block of bytes
constexpr int32_t kMaskTile = kPage * kMaskHeads;
constexpr int32_t kTotals = 8;  // int32 of a core's sums: one block

struct Placed {
  int32_t mask, rank;  // 0 and 0 where nothing is kept
};

class Places {
 public:
  __aicore__ inline Places() {}

  __aicore__ inline void Init(GM_ADDR select, GM_ADDR used_before, GM_ADDR workspace,
                              const TwKvResidualTiling& tiling) {
    t_ = tiling;
    tiles_ = CeilDiv(t_.heads, t_.tile_heads);
    select_.SetGlobalBuffer(reinterpret_cast<__gm__ uint8_t*>(select));
    masks_.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(workspace));
    totals_ = masks_[static_cast<uint64_t>(t_.pages) * tiles_ * 2 * kMaskHeads];
    AscendC::GlobalTensor<int32_t> used;
    used.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(used_before));
    for (int32_t k = 0; k < 2; ++k) next_[k] = used.GetValue(static_cast<uint64_t>(k));
  }

  // Masks and sums of the units of one core, and where its first rows lie. All cores go through here.
  __aicore__ inline void Find(const Share& units, int32_t block) {
    Room room;
    const LocalTensor<uint8_t> bytes = room.Take<uint8_t>(kMaskTile);
    const LocalTensor<half> halves = room.Take<half>(kMaskTile);
    const LocalTensor<float> chosen = room.Take<float>(kMaskTile), weights = room.Take<float>(kMaskTile),
                             sums = room.Take<float>(kMaskTile);
    const LocalTensor<uint8_t> bits = room.Take<uint8_t>(kMaskTile / 8);
    const LocalTensor<int32_t> out = room.Take<int32_t>(2 * kMaskHeads);
    const LocalTensor<int32_t> all = room.Take<int32_t>(t_.blocks * kTotals);
    AscendC::Duplicate(bytes.ReinterpretCast<int16_t>(), static_cast<int16_t>(0), kMaskTile / 2);
    for (int32_t i = 0; i < kPage; ++i)
      AscendC::Duplicate(weights[static_cast<uint32_t>(i * kMaskHeads)], static_cast<float>(1 << i),
                         kMaskHeads);
    Fence();
    int32_t count[2] = {0, 0};
    for (int32_t u = units.begin; u < units.end; ++u) {
      const int32_t head = u % tiles_ * t_.tile_heads, heads = Min(t_.tile_heads, t_.heads - head);
      AscendC::PipeBarrier<PIPE_ALL>();
      LoadRows(bytes, select_[static_cast<uint64_t>(u / tiles_) * kPage * t_.heads + head],
               {kPage, 1, 1, heads, kMaskHeads}, {t_.heads, heads}, kMaskHeads);
      AscendC::SetFlag<AscendC::HardEvent::MTE2_V>(0);
      AscendC::WaitFlag<AscendC::HardEvent::MTE2_V>(0);
      AscendC::Cast(halves, bytes, AscendC::RoundMode::CAST_NONE, static_cast<uint32_t>(kMaskTile));
      Fence();
      AscendC::Cast(chosen, halves, AscendC::RoundMode::CAST_NONE, static_cast<uint32_t>(kMaskTile));
      Fence();
      for (int32_t k = 0; k < 2; ++k)
        MaskOf(out[static_cast<uint32_t>(k * kMaskHeads)], chosen, weights, sums, bits, k + 1);
      AscendC::SetFlag<AscendC::HardEvent::V_MTE3>(0);
      AscendC::SetFlag<AscendC::HardEvent::V_S>(0);
      AscendC::WaitFlag<AscendC::HardEvent::V_MTE3>(0);
      AscendC::DataCopy(masks_[static_cast<uint64_t>(u) * 2 * kMaskHeads], out,
                        static_cast<uint32_t>(2 * kMaskHeads));
      AscendC::WaitFlag<AscendC::HardEvent::V_S>(0);
      for (int32_t k = 0; k < 2; ++k)
        for (int32_t h = 0; h < heads; ++h)
          count[k] += Bits(out.GetValue(static_cast<uint32_t>(k * kMaskHeads + h)));
    }
    AscendC::PipeBarrier<PIPE_ALL>();
    Meet(count, block, out, all);
  }

  // The next unit's heads in order: kind 0 are residuals, 1 floats. A run that ends beyond its pool is left
  // out.
  __aicore__ inline Placed Next(int32_t unit, int32_t head, int32_t kind) {
    const int32_t mask =
        masks_.GetValue((static_cast<uint64_t>(unit) * 2 + static_cast<uint64_t>(kind)) * kMaskHeads +
                        static_cast<uint64_t>(head));
    const int32_t rank = next_[kind];
    next_[kind] += Bits(mask);
    if (mask == 0 || next_[kind] > (kind == 0 ? t_.pool_rows : t_.fpool_rows)) return {0, 0};
    kept_[kind] = next_[kind];
    return {mask, rank};
  }

  // Rows in use after the launch, where it is this core that knows: the one with the first run left out, else
  // the last one.
  __aicore__ inline bool Knows(int32_t kind, int32_t block) const {
    const int32_t rows = kind == 0 ? t_.pool_rows : t_.fpool_rows;
    return (first_[kind] <= rows || block == 0) && (next_[kind] > rows || block + 1 == t_.blocks);
  }
  __aicore__ inline int32_t kept(int32_t kind) const { return kept_[kind]; }

  __aicore__ inline static int32_t Bits(int32_t mask) {
    return static_cast<int32_t>(AscendC::ScalarGetCountOfValue<1>(static_cast<uint64_t>(mask)));
  }

 private:
  // Bit t of mask h is whether vector (t, h) is chosen as `value`: a sum of powers of two, exact in fp32.
  __aicore__ inline void MaskOf(const LocalTensor<int32_t>& mask, const LocalTensor<float>& chosen,
                                const LocalTensor<float>& weights, const LocalTensor<float>& sums,
                                const LocalTensor<uint8_t>& bits, int32_t value) {
    AscendC::CompareScalar(bits, chosen, static_cast<float>(value), AscendC::CMPMODE::EQ,
                           static_cast<uint32_t>(kMaskTile));
    Fence();
    AscendC::Select(sums, bits, weights, 0.0f, AscendC::SELMODE::VSEL_TENSOR_SCALAR_MODE,
                    static_cast<uint32_t>(kMaskTile));
    Fence();
    for (int32_t rows = kPage / 2; rows > 0; rows /= 2) {
      AscendC::Add(sums, sums, sums[static_cast<uint32_t>(rows * kMaskHeads)], rows * kMaskHeads);
      Fence();
    }
    AscendC::Cast(mask, sums, AscendC::RoundMode::CAST_RINT, static_cast<uint32_t>(kMaskHeads));
    Fence();
  }

  __aicore__ inline void Meet(const int32_t (&count)[2], int32_t block, const LocalTensor<int32_t>& out,
                              const LocalTensor<int32_t>& all) {
    for (int32_t k = 0; k < kTotals; ++k) out.SetValue(static_cast<uint32_t>(k), k < 2 ? count[k] : 0);
    AscendC::SetFlag<AscendC::HardEvent::S_MTE3>(0);
    AscendC::WaitFlag<AscendC::HardEvent::S_MTE3>(0);
    AscendC::DataCopy(totals_[static_cast<uint64_t>(block * kTotals)], out, static_cast<uint32_t>(kTotals));
    AscendC::PipeBarrier<PIPE_ALL>();
    AscendC::SyncAll();
    AscendC::DataCopy(all, totals_, static_cast<uint32_t>(t_.blocks * kTotals));
    AscendC::SetFlag<AscendC::HardEvent::MTE2_S>(0);
    AscendC::WaitFlag<AscendC::HardEvent::MTE2_S>(0);
    for (int32_t i = 0; i < block; ++i)
      for (int32_t k = 0; k < 2; ++k) next_[k] += all.GetValue(static_cast<uint32_t>(i * kTotals + k));
    for (int32_t k = 0; k < 2; ++k) kept_[k] = first_[k] = next_[k];
    AscendC::PipeBarrier<PIPE_ALL>();
  }

  TwKvResidualTiling t_;
  AscendC::GlobalTensor<uint8_t> select_;
  AscendC::GlobalTensor<int32_t> masks_, totals_;
  int32_t tiles_;
  int32_t first_[2], next_[2], kept_[2];  // rows: before this core's units, so far, of the last run kept
};

}  // namespace tw_kv
