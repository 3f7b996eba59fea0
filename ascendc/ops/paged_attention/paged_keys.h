// Quantised caches on the vector cores: codes become tiles of half in the workspace, which the cube reads as
// it reads pages in fractals. Core 0 of a group dequantises keys, core 1 values.
//
// No scale is multiplied into a tile: a code, and a code with its residual (q + n/16, 12 bits), is exact in
// half. paged_factors.h says where the scales go.
#pragma once

#include "paged_factors.h"

namespace tw_paged {

constexpr int32_t kCodeEvent = 3;        // event ids of two tiles of codes: 3 and 4
constexpr int32_t kCodeElements = 8192;  // of one tile
constexpr int32_t kCodeRows =
    kPage + 1;  // of a page in fractals in UB, whose columns start in different banks
constexpr int32_t kMostResiduals = 128;  // of one tile: kCodeElements / 64 vectors

// T: of queries and float vectors.
template <typename T>
class Keys : public Factors<T> {
 public:
  using Base = Factors<T>;
  __aicore__ inline void Init(const Arguments& a, const TwPagedTiling& tiling, int32_t core, int32_t side,
                              AscendC::TPipe& pipe, int32_t capacity) {
    Base::Init(a, tiling, core, side, pipe, capacity);
    d_ = side == 0 ? t_.dk : t_.dv;
    columns_ = t_.tile_heads * d_;
    page_ = columns_ * (t_.nz != 0 ? kCodeRows : kPage);
    Bind(a, core);
    for (int32_t i = 0; i < 2; ++i) {
      codes_[i] = Take<TPosition::VECIN, int8_t>(pipe, kCodeElements / kPage * kCodeRows);
      // One row more than tokens: fractal columns then start in different banks.
      tile_[i] = Take<TPosition::VECOUT, half>(pipe, kCodeElements + columns_);
      if (t_.residual != 0) nibbles_[i] = Take<TPosition::VECIN, int16_t>(pipe, kCodeElements / 4);
    }
    if (t_.residual != 0 && t_.codes == 1) own_channels_ = Take<TPosition::VECIN, float>(pipe, columns_);
  }

  __aicore__ inline void Release() {
    for (int32_t i = 0; i < 2; ++i) {
      SetFlag<HardEvent::V_MTE2>(kCodeEvent + i);
      SetFlag<HardEvent::MTE3_V>(kCodeEvent + i);
    }
    Base::Release();
  }
  __aicore__ inline void Finish() {
    for (int32_t i = 0; i < 2; ++i) {
      WaitFlag<HardEvent::V_MTE2>(kCodeEvent + i);
      WaitFlag<HardEvent::MTE3_V>(kCodeEvent + i);
    }
    Base::Finish();
  }

  // The keys or values of a step, and before a task's first step its queries, into the workspace.
  __aicore__ inline void Prepare(const Step& s) {
    if (s.first) {
      if (t_.residual != 0 && t_.codes == 1) {
        LoadOnce(own_channels_, scale_[side_], static_cast<int64_t>(s.task.head) * d_, columns_);
        FreeOnce();
      }
      Base::FoldQueries(s);
    }
    const int32_t tokens = RoundUp(s.count, kPage), tile = kCodeElements / columns_ / kPage * kPage;
    for (int32_t first = 0; first < tokens; first += tile) Dequantise(s, first, Min(tile, tokens - first));
    AscendC::CrossCoreSetFlag<2, PIPE_MTE3>(kKeys);
  }

 private:
  using Base::FreeOnce;
  using Base::LoadOnce;
  using Base::once_;
  using Base::PageOf;
  using Base::scale_;
  using Base::side_;
  using Base::t_;
  using Base::work_;

  __aicore__ inline void Bind(const Arguments& a, int32_t core) {
    const bool keys = side_ == 0;
    cache_.SetGlobalBuffer(reinterpret_cast<__gm__ int8_t*>(keys ? a.k_cache : a.v_cache));
    mask_.SetGlobalBuffer(reinterpret_cast<__gm__ uint16_t*>(keys ? a.k_mask : a.v_mask));
    rank_.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(keys ? a.k_rank : a.v_rank));
    pool_.SetGlobalBuffer(reinterpret_cast<__gm__ int16_t*>(keys ? a.k_pool : a.v_pool));
    float_mask_.SetGlobalBuffer(reinterpret_cast<__gm__ uint16_t*>(keys ? a.k_fmask : a.v_fmask));
    float_rank_.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(keys ? a.k_frank : a.v_frank));
    float_pool_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(keys ? a.k_fpool : a.v_fpool));
    tile_slot_ = static_cast<int64_t>(t_.tile_heads) * t_.step_tokens * (t_.dk + t_.dv);
    tiles_ = Part<half>(a.workspace, t_.keys, core, kKeySlots * tile_slot_);
  }

  // `count` tokens from `first` on, whole pages: [columns / 16] fractal columns of `count` rows.
  __aicore__ inline void Dequantise(const Step& s, int32_t first, int32_t count) {
    const int32_t slot = static_cast<int32_t>(done_++ % 2), event = kCodeEvent + slot;
    const LocalTensor<int8_t> codes = codes_[slot];
    const LocalTensor<half> tile = tile_[slot];
    const int32_t pitch = count + 1;
    WaitFlag<HardEvent::V_MTE2>(event);
    for (int32_t i = 0; i < count; i += kPage) LoadPage(codes[i / kPage * page_], PageOf(s, first + i), s);
    if (t_.residual != 0) LoadResiduals(nibbles_[slot], s, first, count);
    SetFlag<HardEvent::MTE2_V>(event);
    WaitFlag<HardEvent::MTE2_V>(event);
    WaitFlag<HardEvent::MTE3_V>(event);
    for (int32_t i = 0; i < count; i += kPage) {
      for (int32_t c = 0; c < columns_; c += 2 * kLanes) {
        const uint64_t lanes = static_cast<uint64_t>(Min(2 * kLanes, columns_ - c));
        const LocalTensor<half> dst = tile[c * pitch + i * kFractal];
        if (t_.nz != 0)
          AscendC::Cast(dst, codes[i / kPage * page_ + c * kCodeRows], AscendC::RoundMode::CAST_NONE, lanes,
                        kPage, AscendC::UnaryRepeatParams(static_cast<uint16_t>(pitch), kCodeRows, 1, 1));
        else
          AscendC::Cast(dst, codes[i / kPage * page_ + c], AscendC::RoundMode::CAST_NONE, lanes, kPage,
                        AscendC::UnaryRepeatParams(static_cast<uint16_t>(pitch), 1, 1,
                                                   static_cast<uint8_t>(columns_ / 32)));
      }
    }
    VectorBarrier();
    if (t_.residual != 0) {
      AddResiduals(tile, nibbles_[slot], pitch);
      for (int32_t i = 0; i < count; i += kPage) ReplaceByFloats(tile, s, first + i, i, pitch);
    }
    SetFlag<HardEvent::V_MTE2>(event);
    SetFlag<HardEvent::V_MTE3>(event);
    WaitFlag<HardEvent::V_MTE3>(event);
    const int64_t values = side_ == 0 ? 0 : static_cast<int64_t>(t_.tile_heads) * t_.step_tokens * t_.dk;
    const int64_t to = static_cast<int64_t>(s.number % kKeySlots) * tile_slot_ + values + first * kFractal;
    AscendC::DataCopy(
        tiles_[to], tile,
        AscendC::DataCopyParams(static_cast<uint16_t>(columns_ / kFractal), static_cast<uint16_t>(count), 1,
                                static_cast<uint16_t>(t_.step_tokens - count)));
    SetFlag<HardEvent::MTE3_V>(event);
  }

  __aicore__ inline void LoadPage(const LocalTensor<int8_t>& dst, int32_t page, const Step& s) {
    const int32_t row = t_.kv_heads * d_;
    const int64_t from = static_cast<int64_t>(page) * (side_ == 0 ? t_.k_page : t_.v_page);
    if (t_.nz != 0)
      AscendC::DataCopy(dst, cache_[from + static_cast<int64_t>(s.task.head) * d_ * kPage],
                        AscendC::DataCopyParams(static_cast<uint16_t>(columns_ / 32), kPage, 0, 1));
    else
      AscendC::DataCopy(dst, cache_[from + static_cast<int64_t>(s.task.head) * d_],
                        AscendC::DataCopyParams(kPage, static_cast<uint16_t>(columns_ / 32),
                                                static_cast<uint16_t>((row - columns_) / 32), 0));
  }

  // Residuals of a page and head lie one after the other in the pool; those of the tile do so in `dst`.
  __aicore__ inline void LoadResiduals(const LocalTensor<int16_t>& dst, const Step& s, int32_t first,
                                       int32_t count) {
    found_ = 0;
    for (int32_t i = 0; i < count; i += kPage) {
      const uint64_t at = static_cast<uint64_t>(PageOf(s, first + i)) * t_.kv_heads + s.task.head;
      for (int32_t head = 0; head < t_.tile_heads; ++head) {
        uint64_t bits = mask_.GetValue(at + head);
        if (bits == 0) continue;
        const int64_t run = AscendC::ScalarGetCountOfValue<1>(bits);
        AscendC::DataCopy(dst[found_ * d_ / 4],
                          pool_[static_cast<int64_t>(rank_.GetValue(at + head)) * (d_ / 4)],
                          static_cast<uint32_t>(run * (d_ / 4)));
        for (; bits != 0; bits &= bits - 1) {
          const int32_t token = static_cast<int32_t>(AscendC::ScalarGetSFFValue<1>(bits));
          place_[found_++] = (head << 16) | (i + token);
        }
      }
    }
  }

  // Nibble j of lane i is channel j * d/4 + i: shifted to the top of a lane, and back with its sign.
  __aicore__ inline void AddResiduals(const LocalTensor<half>& tile, const LocalTensor<int16_t>& nibbles,
                                      int32_t pitch) {
    if (found_ == 0) return;
    const int32_t per = d_ / 64;  // blocks of a vector's lanes, and of 16 channels for each nibble
    // As unsigned: a shift to the left of a signed lane would keep its sign.
    const LocalTensor<uint16_t> tops = work_.template ReinterpretCast<uint16_t>(),
                                packed = nibbles.template ReinterpretCast<uint16_t>();
    for (int32_t block = 0; block < d_ / kFractal; ++block) {
      const uint16_t up = static_cast<uint16_t>(12 - 4 * (block / per));
      for (int32_t k = 0; k < found_; k += kBlock) {
        const uint64_t lanes = static_cast<uint64_t>(Min(kBlock, found_ - k) * kFractal);
        AscendC::ShiftLeft(tops[(block * found_ + k) * kFractal], packed[k * d_ / 4 + block % per * kFractal],
                           up, lanes, 1, AscendC::UnaryRepeatParams(1, static_cast<uint16_t>(per), 8, 8));
      }
    }
    const int32_t all = found_ * d_;
    const LocalTensor<int16_t> signs = work_.template ReinterpretCast<int16_t>();
    VectorBarrier();
    AscendC::ShiftRight(signs, signs, static_cast<int16_t>(12), all);
    VectorBarrier();
    const LocalTensor<half> residuals = work_.template ReinterpretCast<half>();
    AscendC::Cast(residuals, signs, AscendC::RoundMode::CAST_NONE, static_cast<uint32_t>(all));
    VectorBarrier();
    AscendC::Muls(residuals, residuals, static_cast<half>(0.0625f), all);
    VectorBarrier();
    const uint8_t step = static_cast<uint8_t>(pitch), from = static_cast<uint8_t>(found_);
    for (int32_t k = 0; k < found_; ++k) {
      const int32_t head = place_[k] >> 16, token = place_[k] & 0xffff;
      const LocalTensor<half> row = tile[head * d_ * pitch + token * kFractal];
      AscendC::Add(row, row, residuals[k * kFractal], static_cast<uint64_t>(d_), 1,
                   AscendC::BinaryRepeatParams(step, step, from, 8, 8, 8));
    }
    VectorBarrier();
  }

  // Float vectors of page `first` of the step, which begins at row `at` of the tile.
  __aicore__ inline void ReplaceByFloats(const LocalTensor<half>& tile, const Step& s, int32_t first,
                                         int32_t at, int32_t pitch) {
    const int64_t page = PageOf(s, first);
    for (int32_t head = 0; head < t_.tile_heads; ++head) {
      const uint64_t entry = static_cast<uint64_t>(page) * t_.kv_heads + s.task.head + head;
      uint64_t bits = float_mask_.GetValue(entry);
      if (bits == 0) continue;
      const int32_t run = static_cast<int32_t>(AscendC::ScalarGetCountOfValue<1>(bits));
      WaitFlag<HardEvent::V_MTE2>(kOnce);
      AscendC::DataCopy(once_, float_pool_[static_cast<int64_t>(float_rank_.GetValue(entry)) * d_],
                        static_cast<uint32_t>(run * d_));
      SetFlag<HardEvent::MTE2_V>(kOnce);
      WaitFlag<HardEvent::MTE2_V>(kOnce);
      Widen(work_, once_, run * d_);
      VectorBarrier();
      if (t_.codes == 1) {
        const AscendC::BinaryRepeatParams p(1, 1, 1, Blocks(d_), Blocks(d_), 0);
        for (int32_t c = 0; c < d_; c += kLanes)
          AscendC::Div(work_[c], work_[c], own_channels_[head * d_ + c], static_cast<uint64_t>(kLanes), run,
                       p);
        VectorBarrier();
      }
      FreeOnce();
      for (int32_t k = 0; bits != 0; bits &= bits - 1, ++k) {
        const int32_t token = static_cast<int32_t>(AscendC::ScalarGetSFFValue<1>(bits));
        const LocalTensor<float> x = work_[k * d_];
        if (t_.codes == 2) {
          const float scale = scale_[side_].GetValue(
              static_cast<uint64_t>(page * kPage + token) * t_.kv_heads + s.task.head + head);
          AscendC::Muls(x, x, 1.0f / scale, d_);
          VectorBarrier();
        }
        for (int32_t c = 0; c < d_; c += kLanes)
          AscendC::Cast(tile[(head * d_ + c) * pitch + (at + token) * kFractal], x[c],
                        AscendC::RoundMode::CAST_RINT, static_cast<uint64_t>(kLanes), 1,
                        AscendC::UnaryRepeatParams(static_cast<uint16_t>(pitch), 1, 8, 8));
      }
      VectorBarrier();
    }
  }

  GlobalTensor<T> float_pool_;
  GlobalTensor<int8_t> cache_;
  GlobalTensor<int16_t> pool_;
  GlobalTensor<uint16_t> mask_, float_mask_;
  GlobalTensor<int32_t> rank_, float_rank_;
  GlobalTensor<half> tiles_;
  LocalTensor<int8_t> codes_[2];
  LocalTensor<half> tile_[2];
  LocalTensor<int16_t> nibbles_[2];
  LocalTensor<float> own_channels_;
  int64_t tile_slot_;
  int32_t d_, columns_, page_, found_ = 0;
  int32_t place_[kMostResiduals];  // head << 16 | row of the tile, of each residual found
  uint32_t done_ = 0;
};

}  // namespace tw_paged
