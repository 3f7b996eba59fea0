// The cube core: scores of a step one step ahead of its values, pages gathered into L1 in tiles.
#pragma once

#include "paged_walk.h"

namespace tw_paged {

// Event ids of MTE1 and MTE2: two tiles of pages, two tasks' queries, two steps' weights.
constexpr int32_t kTileEvent = 0, kQueryEvent = 2, kWeightEvent = 4;
constexpr int32_t kSumEvent = 2;  // of M and FIX, besides two tiles of scores
constexpr int32_t kBuffers = 2;
constexpr int32_t kSmall = 10;  // fractals of C below which Mmads onto one tile need a barrier

// T: what the cube multiplies; `kCodes`: the caches hold codes, and tiles come dequantised from the
// workspace.
template <typename T, bool kCodes>
class Cube {
 public:
  __aicore__ inline void Init(const Arguments& a, const TwPagedTiling& tiling) {
    t_ = tiling;
    core_ = static_cast<int32_t>(AscendC::GetBlockIdx());
    q_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(a.q));
    table_.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(a.block_table));
    k_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(a.k_cache));
    v_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(a.v_cache));
    rows_ = t_.row_blocks * t_.group;
    const int64_t step = static_cast<int64_t>(rows_) * t_.step_tokens;
    scores_ = Part<float>(a.workspace, t_.scores, core_, kSlots * step);
    weights_ = Part<T>(a.workspace, t_.weights, core_, kSlots * step);
    values_ = Part<float>(a.workspace, t_.values, core_, static_cast<int64_t>(kSlots) * rows_ * t_.dv);
    queries_ = Part<T>(a.workspace, t_.queries, core_, static_cast<int64_t>(kSlots) * rows_ * t_.dk);
    key_slot_ = static_cast<int64_t>(t_.tile_heads) * t_.step_tokens * (t_.dk + t_.dv);
    keys_ = Part<T>(a.workspace, t_.keys, core_, kKeySlots * key_slot_);
    loads_.Init(a.plan, core_, t_.cores, t_.step_tokens);
    walk_.Init(a.plan, core_, t_.cores, t_.step_tokens);
  }

  __aicore__ inline void Process() {
    Allocate();
    Release();
    loads_.First(load_.keys);
    load_.done = !load_.keys.valid;
    load_.values.valid = false;
    Step now, before;
    before.valid = false;
    for (walk_.First(now); now.valid; walk_.Next(now)) {
      Scores(now);
      if (before.valid) Values(before);
      before = now;
    }
    if (before.valid) Values(before);
    Finish();
  }

 private:
  // Tiles in the order of their use: keys of a step, then values of the step before.
  struct Loads {
    Step keys, values;
    int32_t tile = 0;
    uint32_t issued = 0, consumed = 0;
    bool of_values = false, done = false;
  };

  __aicore__ inline void Allocate() {
    AscendC::TPipe pipe;
    const int32_t query_rows = t_.row_blocks * t_.group;
    // Rows of all heads' blocks, each padded to fractals: of queries together, or each for itself.
    padded_ = Max(t_.tile_heads * RoundUp(CeilDiv(query_rows, t_.tile_heads), kFractal),
                  t_.row_blocks * RoundUp(t_.group, kFractal));
    const int32_t head_rows = RoundUp(CeilDiv(query_rows, t_.tile_heads), kFractal);
    const int32_t d = Max(t_.dk, t_.dv);
    l1_tile_ = t_.tile_heads * d * t_.tile_tokens;
    l1_query_ = padded_ * t_.dk;
    l1_weight_ = padded_ * t_.step_tokens;
    l0a_size_ = head_rows * Max(t_.dk, t_.tile_tokens);
    l0b_size_ = d * t_.tile_tokens;
    l0c_size_ = head_rows * t_.tile_tokens;
    tiles1_ = Take<TPosition::B1, T>(pipe, kBuffers * l1_tile_);
    query1_ = Take<TPosition::A1, T>(pipe, kBuffers * l1_query_);
    weight1_ = Take<TPosition::A1, T>(pipe, kBuffers * l1_weight_);
    a2_ = Take<TPosition::A2, T>(pipe, kBuffers * l0a_size_);
    b2_ = Take<TPosition::B2, T>(pipe, kBuffers * l0b_size_);
    score0_ = Take<TPosition::CO1, float>(pipe, kBuffers * l0c_size_);
    sum0_ = Take<TPosition::CO1, float>(pipe, padded_ * t_.dv);
    pipe.Destroy();  // events are this kernel's own
  }

  // Every buffer starts free, and is waited for once more at the end, so that no flag is left set.
  __aicore__ inline void Release() {
    for (int32_t i = 0; i < kBuffers; ++i) {
      SetFlag<HardEvent::MTE1_MTE2>(kTileEvent + i);
      SetFlag<HardEvent::MTE1_MTE2>(kQueryEvent + i);
      SetFlag<HardEvent::MTE1_MTE2>(kWeightEvent + i);
      SetFlag<HardEvent::M_MTE1>(i);
      SetFlag<HardEvent::FIX_M>(i);
    }
    SetFlag<HardEvent::FIX_M>(kSumEvent);
  }
  __aicore__ inline void Finish() {
    for (int32_t i = 0; i < kBuffers; ++i) {
      WaitFlag<HardEvent::MTE1_MTE2>(kTileEvent + i);
      WaitFlag<HardEvent::MTE1_MTE2>(kQueryEvent + i);
      WaitFlag<HardEvent::MTE1_MTE2>(kWeightEvent + i);
      WaitFlag<HardEvent::M_MTE1>(i);
      WaitFlag<HardEvent::FIX_M>(i);
    }
    WaitFlag<HardEvent::FIX_M>(kSumEvent);
  }

  __aicore__ inline void Advance() {
    const Step& s = load_.of_values ? load_.values : load_.keys;
    if (++load_.tile * t_.tile_tokens < s.count) return;
    load_.tile = 0;
    if (!load_.of_values && load_.values.valid) {
      load_.of_values = true;
      return;
    }
    load_.values = load_.keys;
    loads_.Next(load_.keys);
    load_.of_values = !load_.keys.valid;
    load_.done = load_.of_values && !load_.values.valid;
  }

  __aicore__ inline void LoadAhead() {
    while (!load_.done && load_.issued - load_.consumed < static_cast<uint32_t>(kBuffers)) {
      const Step& s = load_.of_values ? load_.values : load_.keys;
      const int32_t slot = static_cast<int32_t>(load_.issued % kBuffers);
      const int32_t first = load_.tile * t_.tile_tokens;
      const int32_t rows = RoundUp(Min(t_.tile_tokens, s.count - first), kPage);
      const int32_t d = load_.of_values ? t_.dv : t_.dk;
      WaitFlag<HardEvent::MTE1_MTE2>(kTileEvent + slot);
      if constexpr (kCodes) {
        if (!load_.of_values && load_.tile == 0) AscendC::CrossCoreWaitFlag<2, PIPE_MTE2>(kKeys);
        TakeTile(tiles1_[slot * l1_tile_], s, first, rows, d);
      } else {
        Gather(tiles1_[slot * l1_tile_], load_.of_values ? v_ : k_, s, first, rows, d,
               load_.of_values ? t_.v_page : t_.k_page);
      }
      if (load_.of_values && s.begin == 0 && load_.tile == 0 && s.task.skip > 0)
        Silence(tiles1_[slot * l1_tile_], s.task.skip, rows, d);
      SetFlag<HardEvent::MTE2_MTE1>(kTileEvent + slot);
      ++load_.issued;
      Advance();
    }
  }

  // A tile is one matrix in fractals, [rows, heads * d]: a page of several heads is contiguous in each token.
  __aicore__ inline void Gather(const LocalTensor<T>& dst, const GlobalTensor<T>& cache, const Step& s,
                                int32_t first, int32_t rows, int32_t d, int32_t page_size) {
    constexpr int32_t kC0 = tw_gemm::C0<T>();
    const int32_t pages = rows / kPage, columns = t_.tile_heads * d;
    const int64_t row =
        static_cast<int64_t>(s.task.sequence) * t_.table_width + s.task.page + (s.begin + first) / kPage;
    for (int32_t i = 0; i < pages; ++i) {
      const int64_t page = static_cast<int64_t>(table_.GetValue(row + i)) * page_size;
      if (t_.nz != 0) {
        const AscendC::DataCopyParams p(static_cast<uint16_t>(columns / kC0), kPage, 0,
                                        static_cast<uint16_t>(rows - kPage));
        AscendC::DataCopy(dst[i * kPage * kC0], cache[page + static_cast<int64_t>(s.task.head) * d * kPage],
                          p);
      } else {
        tw_gemm::ToFractals(dst[i * kPage * kC0], cache[page + static_cast<int64_t>(s.task.head) * d], kPage,
                            columns, t_.kv_heads * d, rows);
      }
    }
  }
  // The same from the workspace, where fractal columns are step_tokens rows long.
  __aicore__ inline void TakeTile(const LocalTensor<T>& dst, const Step& s, int32_t first, int32_t rows,
                                  int32_t d) {
    constexpr int32_t kC0 = tw_gemm::C0<T>();
    const int64_t slot = static_cast<int64_t>(s.number % kKeySlots) * key_slot_;
    const int64_t values = load_.of_values ? static_cast<int64_t>(t_.tile_heads) * t_.step_tokens * t_.dk : 0;
    const AscendC::DataCopyParams p(static_cast<uint16_t>(t_.tile_heads * d / kC0),
                                    static_cast<uint16_t>(rows), static_cast<uint16_t>(t_.step_tokens - rows),
                                    0);
    AscendC::DataCopy(dst, keys_[slot + values + static_cast<int64_t>(first) * kC0], p);
  }

  // Zeros for the values before a window: a weight of 0 would not silence a NaN.
  __aicore__ inline void Silence(const LocalTensor<T>& dst, int32_t skip, int32_t rows, int32_t d) {
    AscendC::PipeBarrier<PIPE_MTE2>();
    AscendC::InitConstValue(
        dst, AscendC::InitConstValueParams<T>(static_cast<uint16_t>(t_.tile_heads * d / tw_gemm::C0<T>()),
                                              static_cast<uint16_t>(skip), static_cast<uint16_t>(rows - skip),
                                              static_cast<T>(0.0f)));
  }

  // The slot of the next tile in L1, once it is there.
  __aicore__ inline int32_t NextTile() {
    LoadAhead();
    const int32_t slot = static_cast<int32_t>(load_.consumed % kBuffers);
    WaitFlag<HardEvent::MTE2_MTE1>(kTileEvent + slot);
    return slot;
  }
  __aicore__ inline void FreeTile(int32_t slot) {
    SetFlag<HardEvent::MTE1_MTE2>(kTileEvent + slot);
    ++load_.consumed;
  }

  // Rows of a head: query by query, and for each the heads that share the kv head.
  __aicore__ inline void LoadQueries(const Step& s, int32_t slot) {
    const int32_t rows = s.task.queries * t_.group, pitch = RoundUp(rows, kFractal);
    const int32_t row_size = t_.heads * t_.dk;
    WaitFlag<HardEvent::MTE1_MTE2>(kQueryEvent + slot);
    for (int32_t head = 0; head < t_.tile_heads; ++head) {
      const LocalTensor<T> dst = query1_[slot * l1_query_ + head * pitch * t_.dk];
      if constexpr (kCodes) {
        const int64_t from = (static_cast<int64_t>(slot) * rows_ + head * rows) * t_.dk;
        tw_gemm::ToFractals(dst, queries_[from], rows, t_.dk, t_.dk, pitch);
      } else {
        for (int32_t i = 0; i < s.task.queries; ++i) {
          const int64_t from = static_cast<int64_t>(s.task.row + i) * row_size +
                               static_cast<int64_t>(s.task.head + head) * t_.group * t_.dk;
          tw_gemm::ToFractals(dst[i * t_.group * tw_gemm::C0<T>()], q_[from], t_.group, t_.dk, t_.dk, pitch);
        }
      }
    }
    SetFlag<HardEvent::MTE2_MTE1>(kQueryEvent + slot);
    WaitFlag<HardEvent::MTE2_MTE1>(kQueryEvent + slot);
  }

  __aicore__ inline void Scores(const Step& s) {
    const int32_t rows = s.task.queries * t_.group, pitch = RoundUp(rows, kFractal);
    const int32_t query = static_cast<int32_t>(s.task_number % kBuffers);
    LoadAhead();  // the keys' flag also says that their queries are ready
    if (s.first) LoadQueries(s, query);
    const int64_t out = static_cast<int64_t>(s.number % kSlots) * rows_ * t_.step_tokens;
    for (int32_t first = 0; first < s.count; first += t_.tile_tokens) {
      const int32_t n = RoundUp(Min(t_.tile_tokens, s.count - first), kPage);
      const int32_t tile = NextTile();
      for (int32_t head = 0; head < t_.tile_heads; ++head) {
        const int32_t l0 = static_cast<int32_t>(multiplied_++ % kBuffers);
        const LocalTensor<T> a2 = a2_[l0 * l0a_size_], b2 = b2_[l0 * l0b_size_];
        WaitFlag<HardEvent::M_MTE1>(l0);
        tw_gemm::LoadA(a2, query1_[query * l1_query_ + head * pitch * t_.dk], 0, pitch, t_.dk);
        tw_gemm::LoadB(b2, tiles1_[tile * l1_tile_ + head * t_.dk * n], 0, n, t_.dk);
        SetFlag<HardEvent::MTE1_M>(l0);
        WaitFlag<HardEvent::MTE1_M>(l0);
        const int32_t c = static_cast<int32_t>(scored_++ % kBuffers);
        WaitFlag<HardEvent::FIX_M>(c);
        Multiply(score0_[c * l0c_size_], a2, b2, pitch, n, t_.dk, true);
        SetFlag<HardEvent::M_MTE1>(l0);
        SetFlag<HardEvent::M_FIX>(c);
        WaitFlag<HardEvent::M_FIX>(c);
        Store(scores_[out + static_cast<int64_t>(head) * rows * t_.step_tokens + first],
              score0_[c * l0c_size_], rows, n, pitch, t_.step_tokens);
        SetFlag<HardEvent::FIX_M>(c);
      }
      FreeTile(tile);
    }
    if (s.last) SetFlag<HardEvent::MTE1_MTE2>(kQueryEvent + query);
    AscendC::CrossCoreSetFlag<2, PIPE_FIX>(kScores);
  }

  // Where queries see different tokens, each one's rows are multiplied by the tokens it sees, and no others:
  // a weight of 0 does not silence a NaN.
  __aicore__ inline void Values(const Step& s) {
    const bool together = s.AllVisible();
    const int32_t per_head = together ? 1 : s.task.queries;
    const int32_t rows = together ? s.task.queries * t_.group : t_.group, pitch = RoundUp(rows, kFractal);
    const int32_t blocks = t_.tile_heads * per_head, columns = RoundUp(s.count, kPage);
    const int32_t slot = static_cast<int32_t>(s.number % kSlots);
    const LocalTensor<T> weights = weight1_[slot * l1_weight_];
    LoadWeights(weights, s, blocks, rows, pitch, columns);
    WaitFlag<HardEvent::FIX_M>(kSumEvent);
    for (int32_t first = 0; first < s.count; first += t_.tile_tokens) {
      const int32_t tile_rows = RoundUp(Min(t_.tile_tokens, s.count - first), kPage);
      const int32_t tile = NextTile();
      if (first > 0 && pitch / kFractal * CeilDiv(t_.dv, kFractal) < kSmall) AscendC::PipeBarrier<PIPE_M>();
      for (int32_t block = 0; block < blocks; ++block) {
        const int32_t seen = together ? s.count : s.Visible(block % per_head);
        const int32_t k = Min(seen - first, Min(t_.tile_tokens, s.count - first));
        if (k <= 0) continue;
        const int32_t l0 = static_cast<int32_t>(multiplied_++ % kBuffers);
        const LocalTensor<T> a2 = a2_[l0 * l0a_size_], b2 = b2_[l0 * l0b_size_];
        WaitFlag<HardEvent::M_MTE1>(l0);
        tw_gemm::LoadA(a2, weights[block * pitch * columns], first, pitch, k);
        tw_gemm::LoadTransposedB(b2, tiles1_[tile * l1_tile_ + block / per_head * t_.dv * tile_rows], 0,
                                 tile_rows, t_.dv, k);
        SetFlag<HardEvent::MTE1_M>(l0);
        WaitFlag<HardEvent::MTE1_M>(l0);
        Multiply(sum0_[block * pitch * t_.dv], a2, b2, pitch, t_.dv, k, first == 0);
        SetFlag<HardEvent::M_MTE1>(l0);
      }
      FreeTile(tile);
    }
    SetFlag<HardEvent::MTE1_MTE2>(kWeightEvent + slot);
    SetFlag<HardEvent::M_FIX>(kSumEvent);
    WaitFlag<HardEvent::M_FIX>(kSumEvent);
    const int64_t out = static_cast<int64_t>(slot) * rows_ * t_.dv;
    for (int32_t block = 0; block < blocks; ++block)
      if (together || s.Visible(block % per_head) > 0)
        Store(values_[out + static_cast<int64_t>(block) * rows * t_.dv], sum0_[block * pitch * t_.dv], rows,
              t_.dv, pitch, t_.dv);
    SetFlag<HardEvent::FIX_M>(kSumEvent);
    AscendC::CrossCoreSetFlag<2, PIPE_FIX>(kValues);
  }

  __aicore__ inline void LoadWeights(const LocalTensor<T>& dst, const Step& s, int32_t blocks, int32_t rows,
                                     int32_t pitch, int32_t columns) {
    const int32_t slot = static_cast<int32_t>(s.number % kSlots);
    const int64_t from = static_cast<int64_t>(slot) * rows_ * t_.step_tokens;
    WaitFlag<HardEvent::MTE1_MTE2>(kWeightEvent + slot);
    AscendC::CrossCoreWaitFlag<2, PIPE_MTE2>(kWeights);
    for (int32_t block = 0; block < blocks; ++block)
      tw_gemm::ToFractals(dst[block * pitch * columns],
                          weights_[from + static_cast<int64_t>(block) * rows * t_.step_tokens], rows, columns,
                          t_.step_tokens, pitch);
    SetFlag<HardEvent::MTE2_MTE1>(kWeightEvent + slot);
    WaitFlag<HardEvent::MTE2_MTE1>(kWeightEvent + slot);
  }

  __aicore__ inline void Multiply(const LocalTensor<float>& c, const LocalTensor<T>& a,
                                  const LocalTensor<T>& b, int32_t m, int32_t n, int32_t k, bool fresh) {
    AscendC::MmadParams p;
    p.m = static_cast<uint16_t>(m);
    p.n = static_cast<uint16_t>(n);
    p.k = static_cast<uint16_t>(k);
    p.cmatrixInitVal = fresh;
    AscendC::Mmad(c, a, b, p);
  }
  __aicore__ inline void Store(const GlobalTensor<float>& dst, const LocalTensor<float>& c, int32_t m,
                               int32_t n, int32_t pitch, int32_t stride) {
    AscendC::FixpipeParamsV220 p;
    p.nSize = static_cast<uint16_t>(n);
    p.mSize = static_cast<uint16_t>(m);
    p.srcStride = static_cast<uint16_t>(pitch);
    p.dstStride = static_cast<uint32_t>(stride);
    AscendC::Fixpipe<float, float, AscendC::CFG_ROW_MAJOR>(dst, c, p);
  }

  TwPagedTiling t_;
  Walk loads_, walk_;
  Loads load_;
  GlobalTensor<T> q_, k_, v_, weights_, queries_, keys_;
  GlobalTensor<float> scores_, values_;
  GlobalTensor<int32_t> table_;
  LocalTensor<T> tiles1_, query1_, weight1_, a2_, b2_;
  LocalTensor<float> score0_, sum0_;
  int64_t key_slot_;
  int32_t core_, rows_, padded_;
  int32_t l1_tile_, l1_query_, l1_weight_, l0a_size_, l0b_size_, l0c_size_;  // elements of one buffer
  uint32_t multiplied_ = 0, scored_ = 0;
};

}  // namespace tw_paged
