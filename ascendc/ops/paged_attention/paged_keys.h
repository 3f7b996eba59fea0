// Quantised caches on the vector cores: codes become tiles of half in the workspace, which the cube reads as
// it reads pages in fractals. Core 0 of a group dequantises keys, core 1 values.
//
// No scale is multiplied into a tile: a code, and a code with its residual (q + n/16, 12 bits), is exact in
// half. Channel scales are folded into the queries and the outputs, token scales into the scores and the
// weights, all in fp32 and normalised by the largest, so that no half loses its range.
#pragma once

#include "paged_rows.h"

namespace tw_paged {

// Event ids on a vector core: two tiles of codes 3 and 4; 5 for what is loaded and used at once.
constexpr int32_t kCodeEvent = 3, kOnce = 5;
constexpr int32_t kCodeElements = 8192;  // of one tile
constexpr int32_t kQueryRows = 8;        // queries folded at once
constexpr int32_t kMostResiduals = 128;  // of one tile: kCodeElements / 64 vectors
constexpr int32_t kWorkFloats = 4096;

// T: of queries and float vectors.
template <typename T>
class Keys {
 public:
  __aicore__ inline void Init(const Arguments& a, const TwPagedTiling& tiling, int32_t core, int32_t side,
                              AscendC::TPipe& pipe, int32_t capacity) {
    t_ = tiling;
    side_ = side;
    d_ = side == 0 ? t_.dk : t_.dv;
    columns_ = t_.tile_heads * d_;
    Bind(a, core);
    for (int32_t i = 0; i < 2; ++i) {
      codes_[i] = Take<TPosition::VECIN, int8_t>(pipe, kCodeElements);
      // One row more than tokens: fractal columns then start in different banks.
      tile_[i] = Take<TPosition::VECOUT, half>(pipe, kCodeElements + columns_);
      factor_[i] = Take<TPosition::VECCALC, float>(pipe, capacity);
      most_value_[i] = Take<TPosition::VECCALC, float>(pipe, kBlock * kBlock);
      if (t_.residual != 0) nibbles_[i] = Take<TPosition::VECIN, int16_t>(pipe, kCodeElements / 4);
    }
    work_ = Take<TPosition::VECCALC, float>(pipe, kWorkFloats);
    once_ = Take<TPosition::VECIN, T>(pipe, kPage * Max(t_.dk, t_.dv));
    query_out_ = Take<TPosition::VECOUT, half>(pipe, kQueryRows * t_.dk);
    spread_ = Take<TPosition::VECCALC, float>(pipe, capacity * kBlock);
    most_ = Take<TPosition::VECCALC, float>(pipe, kBlock);
    if (t_.codes == 1) {
      channels_ = Take<TPosition::VECIN, float>(pipe, columns_);
      query_channels_ = Take<TPosition::VECIN, float>(pipe, t_.tile_heads * Max(t_.dk, t_.dv));
    } else {
      by_token_ = Take<TPosition::VECIN, float>(pipe, t_.step_tokens * kBlock);
      key_scale_ = Take<TPosition::VECCALC, float>(pipe, t_.tile_heads * t_.step_tokens);
      value_scale_ = Take<TPosition::VECCALC, float>(pipe, t_.tile_heads * t_.step_tokens);
      offsets_ = Take<TPosition::VECCALC, int32_t>(pipe, t_.step_tokens);
    }
  }

  __aicore__ inline void Release() {
    for (int32_t i = kCodeEvent; i <= kOnce; ++i) {
      SetFlag<HardEvent::V_MTE2>(i);
      SetFlag<HardEvent::MTE3_V>(i);
    }
    AscendC::Duplicate(most_, 0.0f, kBlock);
    for (int32_t i = 0; i < 2; ++i) AscendC::Duplicate(factor_[i], 0.0f, factor_[i].GetSize());
    if (t_.codes == 2) {
      AscendC::CreateVecIndex(offsets_, 0, static_cast<uint32_t>(t_.step_tokens));
      VectorBarrier();
      AscendC::ShiftLeft(offsets_, offsets_, 5, t_.step_tokens);  // a token's scales take 32 bytes
    }
    VectorBarrier();
  }
  __aicore__ inline void Finish() {
    for (int32_t i = kCodeEvent; i <= kOnce; ++i) {
      WaitFlag<HardEvent::V_MTE2>(i);
      WaitFlag<HardEvent::MTE3_V>(i);
    }
  }

  // The keys or values of a step, and before a task's first step its queries, into the workspace.
  __aicore__ inline void Prepare(const Step& s) {
    if (s.first) {
      if (t_.codes == 1) {
        LoadOnce(channels_, scale_[side_], static_cast<int64_t>(s.task.head) * d_, columns_);
        FreeOnce();
        LoadOnce(query_channels_, scale_[0], static_cast<int64_t>(s.task.head) * t_.dk,
                 t_.tile_heads * t_.dk);
        FreeOnce();
      }
      FoldQueries(s);
    }
    const int32_t tokens = RoundUp(s.count, kPage), tile = kCodeElements / columns_ / kPage * kPage;
    for (int32_t first = 0; first < tokens; first += tile) Dequantise(s, first, Min(tile, tokens - first));
    AscendC::CrossCoreSetFlag<2, PIPE_MTE3>(kKeys);
  }

  // Token scales of a step's tokens, a row for each head; those of values relative to the largest.
  __aicore__ inline void LoadFactors(const Step& s) {
    if (t_.codes != 2) return;
    const int32_t whole = RoundUp(s.count, kLanes), heads = t_.tile_heads;
    for (int32_t kind = 0; kind < 2; ++kind) {
      const LocalTensor<float> dst = kind == 0 ? key_scale_ : value_scale_;
      const int32_t tokens = RoundUp(s.count, kPage);
      WaitFlag<HardEvent::V_MTE2>(kOnce);
      for (int32_t i = 0; i < tokens; i += kPage) {
        const int64_t from = static_cast<int64_t>(PageOf(s, i)) * kPage * t_.kv_heads + s.task.head;
        AscendC::DataCopyPad(
            by_token_[i * kBlock], scale_[kind][from],
            AscendC::DataCopyExtParams(kPage, static_cast<uint32_t>(heads * sizeof(float)),
                                       static_cast<uint32_t>((t_.kv_heads - heads) * sizeof(float)), 0, 0),
            AscendC::DataCopyPadExtParams<float>(false, 0, 0, 0));
      }
      SetFlag<HardEvent::MTE2_V>(kOnce);
      WaitFlag<HardEvent::MTE2_V>(kOnce);
      for (int32_t head = 0; head < heads; ++head)
        AscendC::Gather(dst[head * t_.step_tokens], by_token_, offsets_.template ReinterpretCast<uint32_t>(),
                        static_cast<uint32_t>(head * static_cast<int32_t>(sizeof(float))),
                        static_cast<uint32_t>(tokens));
      FreeOnce();
    }
    const LocalTensor<float> most = most_value_[s.number % 2];
    VectorBarrier();
    FillFrom(value_scale_, s.count, 0.0f, heads, whole, t_.step_tokens);
    VectorBarrier();
    RowMax(most_, value_scale_, work_, heads, whole, t_.step_tokens);
    VectorBarrier();
    AscendC::Maxs(most_, most_, 1e-37f, heads);
    VectorBarrier();
    Spread(most, most_, heads);
    VectorBarrier();
    DivRows(value_scale_, most, heads, whole, t_.step_tokens);
    VectorBarrier();
  }

  // `row`: of the task; `own`: of this core's rows.
  __aicore__ inline void ScaleScores(const LocalTensor<float>& x, const Step& s, int32_t row, int32_t own,
                                     int32_t n) {
    Spread(spread_, factor_[s.task_number % 2][own], n);
    VectorBarrier();
    MulRows(x, spread_, n, s.count, t_.step_tokens);
    if (t_.codes != 2) return;
    VectorBarrier();
    ByHead(x, key_scale_, t_.step_tokens, s, row, n, s.count, t_.step_tokens);
  }
  __aicore__ inline void ScaleWeights(const LocalTensor<float>& x, const Step& s, int32_t row, int32_t n) {
    if (t_.codes != 2) return;
    ByHead(x, value_scale_, t_.step_tokens, s, row, n, RoundUp(s.count, kLanes), t_.step_tokens);
    VectorBarrier();
  }
  __aicore__ inline void ScaleValues(const LocalTensor<float>& x, const Step& s, int32_t row, int32_t n) {
    if (t_.codes != 2) return;
    const LocalTensor<float> most = most_value_[s.number % 2];
    const int32_t per_head = s.task.queries * t_.group;
    for (int32_t from = row; from < row + n;) {
      const int32_t head = from / per_head, to = Min((head + 1) * per_head, row + n);
      const AscendC::BinaryRepeatParams p(1, 1, 0, Blocks(t_.dv), Blocks(t_.dv), 0);
      for (int32_t c = 0; c < t_.dv; c += kLanes)
        AscendC::Mul(x[(from - row) * t_.dv + c], x[(from - row) * t_.dv + c], most[head * kBlock],
                     static_cast<uint64_t>(Min(kLanes, t_.dv - c)), to - from, p);
      from = to;
    }
    VectorBarrier();
  }
  __aicore__ inline void ScaleChannels(const LocalTensor<float>& x, const Step& s, int32_t row, int32_t n) {
    if (t_.codes != 1) return;
    const int32_t values = t_.tile_heads * t_.dv;
    LoadOnce(query_channels_, scale_[1], static_cast<int64_t>(s.task.head) * t_.dv, values);
    ByHead(x, query_channels_, t_.dv, s, row, n, t_.dv, t_.dv);
    FreeOnce();
    VectorBarrier();
  }

 private:
  __aicore__ inline void Bind(const Arguments& a, int32_t core) {
    const bool keys = side_ == 0;
    q_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(a.q));
    table_.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(a.block_table));
    cache_.SetGlobalBuffer(reinterpret_cast<__gm__ int8_t*>(keys ? a.k_cache : a.v_cache));
    scale_[0].SetGlobalBuffer(reinterpret_cast<__gm__ float*>(a.k_scale));
    scale_[1].SetGlobalBuffer(reinterpret_cast<__gm__ float*>(a.v_scale));
    mask_.SetGlobalBuffer(reinterpret_cast<__gm__ uint16_t*>(keys ? a.k_mask : a.v_mask));
    rank_.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(keys ? a.k_rank : a.v_rank));
    pool_.SetGlobalBuffer(reinterpret_cast<__gm__ int16_t*>(keys ? a.k_pool : a.v_pool));
    float_mask_.SetGlobalBuffer(reinterpret_cast<__gm__ uint16_t*>(keys ? a.k_fmask : a.v_fmask));
    float_rank_.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(keys ? a.k_frank : a.v_frank));
    float_pool_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(keys ? a.k_fpool : a.v_fpool));
    query_slot_ = static_cast<int64_t>(t_.row_blocks) * t_.group * t_.dk;
    queries_ = Part<half>(a.workspace, t_.queries, core, kSlots * query_slot_);
    tile_slot_ = static_cast<int64_t>(t_.tile_heads) * t_.step_tokens * (t_.dk + t_.dv);
    tiles_ = Part<half>(a.workspace, t_.keys, core, kKeySlots * tile_slot_);
  }

  __aicore__ inline int32_t PageOf(const Step& s, int32_t token) const {
    return table_.GetValue(static_cast<uint64_t>(s.task.sequence) * t_.table_width + s.task.page +
                           (s.begin + token) / kPage);
  }

  __aicore__ inline void LoadOnce(const LocalTensor<float>& dst, const GlobalTensor<float>& src, int64_t from,
                                  int32_t count) {
    WaitFlag<HardEvent::V_MTE2>(kOnce);
    AscendC::DataCopy(dst, src[from], static_cast<uint32_t>(count));
    SetFlag<HardEvent::MTE2_V>(kOnce);
    WaitFlag<HardEvent::MTE2_V>(kOnce);
  }
  // After the last use of what was loaded.
  __aicore__ inline void FreeOnce() { SetFlag<HardEvent::V_MTE2>(kOnce); }

  // Rows row..row+n of the task times the values of their head.
  __aicore__ inline void ByHead(const LocalTensor<float>& x, const LocalTensor<float>& values, int32_t stride,
                                const Step& s, int32_t row, int32_t n, int32_t columns, int32_t pitch) {
    const int32_t per_head = s.task.queries * t_.group;
    for (int32_t from = row; from < row + n;) {
      const int32_t head = from / per_head, to = Min((head + 1) * per_head, row + n);
      MulColumns(x[(from - row) * pitch], values[head * stride], to - from, columns, pitch);
      from = to;
    }
  }

  // Queries times channel scales, as half of at most 1 in each row; what that divides them by is kept, times
  // the scale of scores.
  __aicore__ inline void FoldQueries(const Step& s) {
    const int32_t all = t_.tile_heads * s.task.queries, first = side_ == 0 ? 0 : CeilDiv(all, 2);
    const int32_t rows = (side_ == 0 ? CeilDiv(all, 2) : all / 2) * t_.group, dk = t_.dk;
    const LocalTensor<float> factor = factor_[s.task_number % 2], x = work_, size = work_[kQueryRows * dk],
                             fold = work_[2 * kQueryRows * dk];
    const float scale = t_.softcap != 0 ? 2 * t_.scale / t_.softcap : t_.scale;
    for (int32_t own = 0; own < rows; own += kQueryRows) {
      const int32_t n = Min(kQueryRows, rows - own), row = first * t_.group + own;
      WaitFlag<HardEvent::V_MTE2>(kOnce);
      for (int32_t from = row; from < row + n;) {
        const int32_t block = from / t_.group, to = Min((block + 1) * t_.group, row + n);
        const int32_t head = s.task.head + block / s.task.queries, query = block % s.task.queries;
        const int64_t at = static_cast<int64_t>(s.task.row + query) * t_.heads + head * t_.group +
                           from % t_.group;
        AscendC::DataCopy(once_[(from - row) * dk], q_[at * dk], static_cast<uint32_t>((to - from) * dk));
        from = to;
      }
      SetFlag<HardEvent::MTE2_V>(kOnce);
      WaitFlag<HardEvent::MTE2_V>(kOnce);
      Widen(x, once_, n * dk);
      VectorBarrier();
      if (t_.codes == 1) {
        ByHead(x, query_channels_, dk, s, row, n, dk, dk);
        VectorBarrier();
      }
      FreeOnce();
      AscendC::Abs(size, x, n * dk);
      VectorBarrier();
      RowMax(factor[own], size, fold, n, dk, dk);
      VectorBarrier();
      AscendC::Maxs(factor[own], factor[own], 1e-37f, n);
      VectorBarrier();
      Spread(spread_, factor[own], n);
      VectorBarrier();
      DivRows(x, spread_, n, dk, dk);
      AscendC::Muls(factor[own], factor[own], scale, n);
      VectorBarrier();
      WaitFlag<HardEvent::MTE3_V>(kOnce);
      Narrow(query_out_, x, n * dk);
      SetFlag<HardEvent::V_MTE3>(kOnce);
      WaitFlag<HardEvent::V_MTE3>(kOnce);
      AscendC::DataCopy(queries_[(s.task_number % kSlots) * query_slot_ + static_cast<int64_t>(row) * dk],
                        query_out_, static_cast<uint32_t>(n * dk));
      SetFlag<HardEvent::MTE3_V>(kOnce);
    }
  }

  // `count` tokens from `first` on, whole pages: [columns / 16] fractal columns of `count` rows.
  __aicore__ inline void Dequantise(const Step& s, int32_t first, int32_t count) {
    const int32_t slot = static_cast<int32_t>(done_++ % 2), event = kCodeEvent + slot;
    const LocalTensor<int8_t> codes = codes_[slot];
    const LocalTensor<half> tile = tile_[slot];
    const int32_t pitch = count + 1;
    WaitFlag<HardEvent::V_MTE2>(event);
    for (int32_t i = 0; i < count; i += kPage) LoadPage(codes[i * columns_], PageOf(s, first + i), s);
    if (t_.residual != 0) LoadResiduals(nibbles_[slot], s, first, count);
    SetFlag<HardEvent::MTE2_V>(event);
    WaitFlag<HardEvent::MTE2_V>(event);
    WaitFlag<HardEvent::MTE3_V>(event);
    for (int32_t i = 0; i < count; i += kPage) {
      for (int32_t c = 0; c < columns_; c += 2 * kLanes) {
        const uint64_t lanes = static_cast<uint64_t>(Min(2 * kLanes, columns_ - c));
        const LocalTensor<half> dst = tile[c * pitch + i * kFractal];
        if (t_.nz != 0)
          AscendC::Cast(dst, codes[i * columns_ + c * kPage], AscendC::RoundMode::CAST_NONE, lanes, kPage,
                        AscendC::UnaryRepeatParams(static_cast<uint16_t>(pitch), kPage, 1, 1));
        else
          AscendC::Cast(dst, codes[i * columns_ + c], AscendC::RoundMode::CAST_NONE, lanes, kPage,
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
    AscendC::DataCopy(tiles_[to], tile,
                      AscendC::DataCopyParams(static_cast<uint16_t>(columns_ / kFractal),
                                              static_cast<uint16_t>(count), 1,
                                              static_cast<uint16_t>(t_.step_tokens - count)));
    SetFlag<HardEvent::MTE3_V>(event);
  }

  __aicore__ inline void LoadPage(const LocalTensor<int8_t>& dst, int32_t page, const Step& s) {
    const int32_t row = t_.kv_heads * d_;
    const int64_t from = static_cast<int64_t>(page) * (side_ == 0 ? t_.k_page : t_.v_page);
    if (t_.nz != 0)
      AscendC::DataCopy(dst, cache_[from + static_cast<int64_t>(s.task.head) * d_ * kPage],
                        static_cast<uint32_t>(kPage * columns_));
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
        AscendC::ShiftLeft(tops[(block * found_ + k) * kFractal],
                           packed[k * d_ / 4 + block % per * kFractal], up, lanes, 1,
                           AscendC::UnaryRepeatParams(1, static_cast<uint16_t>(per), 8, 8));
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
          AscendC::Div(work_[c], work_[c], channels_[head * d_ + c], static_cast<uint64_t>(kLanes), run, p);
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

  TwPagedTiling t_;
  GlobalTensor<T> q_, float_pool_;
  GlobalTensor<int8_t> cache_;
  GlobalTensor<int16_t> pool_;
  GlobalTensor<uint16_t> mask_, float_mask_;
  GlobalTensor<int32_t> table_, rank_, float_rank_;
  GlobalTensor<float> scale_[2];  // of keys and of values
  GlobalTensor<half> queries_, tiles_;
  LocalTensor<int8_t> codes_[2];
  LocalTensor<half> tile_[2], query_out_;
  LocalTensor<float> factor_[2], most_value_[2];
  LocalTensor<int16_t> nibbles_[2];
  LocalTensor<float> work_, spread_, most_, channels_, query_channels_, by_token_, key_scale_, value_scale_;
  LocalTensor<int32_t> offsets_;
  LocalTensor<T> once_;
  int64_t query_slot_, tile_slot_;
  int32_t side_, d_, columns_, found_ = 0;
  int32_t place_[kMostResiduals];  // head << 16 | row of the tile, of each residual found
  uint32_t done_ = 0;
};

}  // namespace tw_paged
