// The k largest of each row of logits with their probabilities, one source for CANN and for the twin.
//
// A core takes whole rows, or one of `parts` shares of a row's tiles; then lists meet in the workspace. The
// next tile is on its way meanwhile. Where floats are ranked by codes, a pass before finds the largest of
// each row, and the survivors' logits are fetched again at the end. In a beam step the lists of a group's
// rows meet on one core, which ranks them by score.
#include "highs.h"
#include "kernel_operator.h"
#include "step.h"
#include "survivors.h"

namespace {

using AscendC::GlobalTensor;
using AscendC::HardEvent;
using AscendC::SetFlag;
using AscendC::WaitFlag;
using namespace tw_topk;

constexpr float kCodesAUnit = 15.9375f;  // 255 / 16
constexpr float kLeastCode = -255.0f;    // of what lies 16 or more below the largest, whose code is 0 here

struct Arguments {
  GM_ADDR logits;
  GM_ADDR row_max;
  GM_ADDR scores;
  GM_ADDR finished;
  GM_ADDR ids;
  GM_ADDR probs;
  GM_ADDR tokens;
  GM_ADDR workspace;
};

template <typename T, bool kRank>
class BeamTopk {
 public:
  __aicore__ inline BeamTopk() {}

  __aicore__ inline void Init(const Arguments& a, GM_ADDR tiling) {
    ReadTiling(tiling, t_);
    logits_.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(a.logits));
    row_max_.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(a.row_max));
    scores_.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(a.scores));
    finished_.SetGlobalBuffer(reinterpret_cast<__gm__ int8_t*>(a.finished));
    tokens_.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(a.tokens));
    ids_.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(a.ids));
    probs_.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(a.probs));
    lists_.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(a.workspace));
    record_ = t_.keep * kEntry + kSums;
    const uint64_t lists =
        Meets() ? static_cast<uint64_t>(t_.rows * t_.parts) * static_cast<uint64_t>(record_) : 0;
    Room room;
    for (int32_t i = 0; i < 2; ++i) in_[i] = room.Take<T>(t_.tile);
    if (kNarrow) wide_ = room.Take<float>(t_.tile);
    if (kCodes) halves_ = room.Take<half>(t_.tile);
    bits_ = room.Take<uint8_t>(t_.tile / 8);
    for (int32_t i = 0; i < 2; ++i) {
      run_[i] = room.Take<float>(2 * t_.keep * kEntry);  // a merge writes all it reads
      out_ids_[i] = room.Take<int32_t>(t_.keep);
      out_probs_[i] = room.Take<float>(t_.keep);
    }
    records_ = room.Take<float>(t_.parts * kSums);
    if (kRank) {
      code_ = room.Take<float>(t_.tile);
      highs_.Init(room, reinterpret_cast<__gm__ float*>(a.workspace) + lists, t_.parts);
      again_ids_ = room.Take<int32_t>(Again());
      again_ = room.Take<float>(Again());
      fetched_ = room.Take<T>(Again());
    }
    sums_.Init(room, FloatOf(t_.inverse));
    survivors_.Init(room, t_);
    if (t_.beams > 0) step_.Init(room, t_);
  }

  __aicore__ inline void Process() {
    const int32_t block = static_cast<int32_t>(AscendC::GetBlockIdx());
    const Share units = ShareOf(t_.rows * t_.parts, t_.blocks, block);
    for (int32_t i = 0; i < 2; ++i) {
      SetFlag<HardEvent::V_MTE2>(i);
      SetFlag<HardEvent::MTE3_V>(i);
    }
    if constexpr (kRank) {
      Walk<true>(units);
      AscendC::PipeBarrier<PIPE_ALL>();
      AscendC::SyncAll();
    }
    Walk<false>(units);
    for (int32_t i = 0; i < 2; ++i) WaitFlag<HardEvent::V_MTE2>(i);
    if (Meets()) {
      AscendC::PipeBarrier<PIPE_ALL>();
      AscendC::SyncAll();
      const int32_t rows = Max(t_.beams, 1);
      for (int32_t i = block; i < t_.rows / rows; i += t_.blocks) {
        if (t_.beams > 0) {
          StepOf(i);
        } else {
          Meet(i);
          Finish(i);
        }
      }
    }
    for (int32_t i = 0; i < 2; ++i) WaitFlag<HardEvent::MTE3_V>(i);
    AscendC::PipeBarrier<PIPE_ALL>();
  }

 private:
  static constexpr bool kCodes = sizeof(T) == 1;
  static constexpr bool kNarrow = sizeof(T) != sizeof(float);

  struct Place {
    int32_t unit, tile, end;  // a share of a row, and the tiles of it that are to come
  };
  // Whether lists go through the workspace.
  __aicore__ inline bool Meets() const { return t_.parts > 1 || t_.beams > 0; }
  __aicore__ inline int32_t Again() const { return RoundUp(t_.kept, kFloats); }
  __aicore__ inline int32_t Valid(int32_t tile) const { return Min(t_.tile, t_.columns - tile * t_.tile); }
  __aicore__ inline Place First(int32_t unit) const {
    const Share tiles = ShareOf(t_.tiles, t_.parts, unit % t_.parts);
    return {unit, tiles.begin, tiles.end};
  }
  __aicore__ inline Place After(const Place& p) const {
    if (p.tile + 1 < p.end) return {p.unit, p.tile + 1, p.end};
    return First(p.unit + 1);
  }

  // All tiles of all units: kFirst only looks for the largest of each row.
  template <bool kFirst>
  __aicore__ inline void Walk(const Share& units) {
    if (units.begin >= units.end) return;
    Place here = First(units.begin);
    Load(here, 0);
    for (int32_t slot = 0; here.unit < units.end; slot ^= 1) {
      const Place next = After(here);
      if (next.unit < units.end) Load(next, slot ^ 1);
      if constexpr (kFirst)
        Measure(here, slot, next.unit != here.unit);
      else
        Take(here, slot, next.unit != here.unit);
      here = next;
    }
  }

  __aicore__ inline void Load(const Place& p, int32_t slot) {
    constexpr int32_t kSize = static_cast<int32_t>(sizeof(T));
    const int32_t bytes = Valid(p.tile) * kSize, rest = RoundUp(bytes, kBlock) - bytes;
    WaitFlag<HardEvent::V_MTE2>(slot);
    const uint64_t at = static_cast<uint64_t>(p.unit / t_.parts) * static_cast<uint64_t>(t_.row) +
                        static_cast<uint64_t>(p.tile) * static_cast<uint64_t>(t_.tile);
    AscendC::DataCopyPad(in_[slot], logits_[at],
                         AscendC::DataCopyExtParams(1, static_cast<uint32_t>(bytes), 0, 0, 0),
                         AscendC::DataCopyPadExtParams<T>(true, 0, static_cast<uint8_t>(rest / kSize), T(0)));
    SetFlag<HardEvent::MTE2_V>(slot);
  }

  // The largest of a unit's tiles, to the workspace with its last one.
  __aicore__ inline void Measure(const Place& p, int32_t slot, bool last) {
    highs_.Add(Arrived(p, slot), Valid(p.tile), again_, code_, p.tile == First(p.unit).tile);
    SetFlag<HardEvent::V_MTE2>(slot);
    if (last) highs_.Leave(p.unit);
  }

  // The survivors of a tile, put to those of the tiles before it; with the last of a unit they leave.
  __aicore__ inline void Take(const Place& p, int32_t slot, bool last) {
    const bool first = p.tile == First(p.unit).tile;
    const int32_t valid = Valid(p.tile);
    if (kRank && first) highs_.Load(p.unit / t_.parts, records_);
    const LocalTensor<float> x = Arrived(p, slot);
    const List found = survivors_.Of(Ranked(x, valid), valid, p.tile * t_.tile);
    if (first && last) {
      best_ = found.entries;
    } else {
      turn_ ^= 1;
      if (first)
        AscendC::DataCopy(run_[turn_], found.entries, static_cast<uint32_t>(t_.keep * kEntry));
      else
        MergeTwo(run_[turn_], {best_, t_.keep}, found);
      best_ = run_[turn_];
      Fence();
    }
    if (t_.whole_row != 0) {
      sums_.SetLargest(kRank ? highs_.high() : best_);
      sums_.Add(x, valid, first);
    }
    SetFlag<HardEvent::V_MTE2>(slot);
    if (last) Leave(p.unit);
  }

  // A tile as clean floats.
  __aicore__ inline LocalTensor<float> Arrived(const Place& p, int32_t slot) {
    const int32_t valid = Valid(p.tile);
    WaitFlag<HardEvent::MTE2_V>(slot);
    const LocalTensor<float> x = Widen(slot, valid);
    FillBehind(x, valid, survivors_.Filled(valid));
    if constexpr (kCodes) {
      // All codes of a masked row are -inf.
      if (!(row_max_.GetValue(static_cast<uint64_t>(p.unit / t_.parts)) > kNone))
        AscendC::Duplicate(x, kNone, survivors_.Filled(valid));
      Fence();
    } else {
      CleanFloats(x, bits_, valid);
    }
    return x;
  }

  // What a tile is ranked by: itself, or its codes, -256 for -inf.
  __aicore__ inline LocalTensor<float> Ranked(const LocalTensor<float>& x, int32_t valid) {
    if constexpr (!kRank) return x;
    const int32_t all = survivors_.Filled(valid);
    ByBlock<Sub2>(code_, x, highs_.high(), all);
    Fence();
    AscendC::Muls(code_, code_, kCodesAUnit, all);
    Fence();
    AscendC::Cast(code_, code_, AscendC::RoundMode::CAST_RINT, static_cast<uint32_t>(all));
    AscendC::CompareScalar(bits_, x, kNone, AscendC::CMPMODE::GT, static_cast<uint32_t>(all));
    Fence();
    AscendC::Maxs(code_, code_, kLeastCode, all);
    Fence();
    AscendC::Select(code_, bits_, code_, kLeastCode - 1.0f, AscendC::SELMODE::VSEL_TENSOR_SCALAR_MODE,
                    static_cast<uint32_t>(all));
    Fence();
    return code_;
  }

  __aicore__ inline LocalTensor<float> Widen(int32_t slot, int32_t valid) {
    const uint32_t count = static_cast<uint32_t>(valid);
    if constexpr (kCodes) {
      AscendC::Cast(halves_, in_[slot], AscendC::RoundMode::CAST_NONE, count);
      Fence();
      AscendC::Cast(wide_, halves_, AscendC::RoundMode::CAST_NONE, count);
      Fence();
      return wide_;
    } else if constexpr (kNarrow) {
      AscendC::Cast(wide_, in_[slot], AscendC::RoundMode::CAST_NONE, count);
      Fence();
      return wide_;
    } else {
      return in_[slot];
    }
  }

  // A share of a row is done: to its result, or to the workspace.
  __aicore__ inline void Leave(int32_t unit) {
    if (!Meets()) return Finish(unit);
    const uint64_t at = static_cast<uint64_t>(unit) * static_cast<uint64_t>(record_);
    SetFlag<HardEvent::V_MTE3>(0);
    WaitFlag<HardEvent::V_MTE3>(0);
    AscendC::DataCopy(lists_[at], best_, static_cast<uint32_t>(t_.keep * kEntry));
    if (t_.whole_row != 0)
      AscendC::DataCopy(lists_[at + static_cast<uint64_t>(t_.keep * kEntry)], sums_.record(),
                        static_cast<uint32_t>(kSums));
    SetFlag<HardEvent::MTE3_V>(2);
    WaitFlag<HardEvent::MTE3_V>(2);
  }

  // Lists and sums of a row's shares to those of the row.
  __aicore__ inline void Meet(int32_t row) {
    const LocalTensor<float> lists = survivors_.sorter().input();
    const GlobalTensor<float> from =
        lists_[static_cast<uint64_t>(row) * static_cast<uint64_t>(t_.parts * record_)];
    const int32_t list = t_.keep * kEntry;
    SetFlag<HardEvent::V_MTE2>(0);
    WaitFlag<HardEvent::V_MTE2>(0);
    LoadHeads(lists, from, list);
    if (t_.whole_row != 0) LoadHeads(records_, from[static_cast<uint64_t>(list)], kSums);
    SetFlag<HardEvent::MTE2_V>(0);
    WaitFlag<HardEvent::MTE2_V>(0);
    best_ = survivors_.sorter().Merge(t_.parts, t_.keep, t_.keep).entries;
    if (t_.whole_row != 0) {
      sums_.SetLargest(best_);
      if constexpr (kRank) sums_.SetLargest(records_);  // the same in all of them
      for (int32_t i = 0; i < t_.parts; ++i) sums_.Meet(records_[static_cast<uint32_t>(i * kSums)], i == 0);
    }
  }
  // `floats` of each share's record.
  __aicore__ inline void LoadHeads(const LocalTensor<float>& dst, const GlobalTensor<float>& src,
                                   int32_t floats) {
    const uint32_t gap = static_cast<uint32_t>((record_ - floats) * static_cast<int32_t>(sizeof(float)));
    AscendC::DataCopyPad(dst, src,
                         AscendC::DataCopyExtParams(
                             static_cast<uint16_t>(t_.parts),
                             static_cast<uint32_t>(floats * static_cast<int32_t>(sizeof(float))), gap, 0, 0),
                         AscendC::DataCopyPadExtParams<float>());
  }

  // The next continuations of a group of beams.
  __aicore__ inline void StepOf(int32_t group) {
    step_.Begin();
    for (int32_t beam = 0; beam < t_.beams; ++beam) {
      const int32_t row = group * t_.beams + beam;
      const float before = scores_.GetValue(static_cast<uint64_t>(row));
      const bool alive = before > kNone;  // NaN is not
      const float score = before < kMost ? before : kMost;
      if (alive && finished_.GetValue(static_cast<uint64_t>(row)) == 0) {
        Meet(row);
        if constexpr (kRank) {
          Rank(row);
          sums_.SetLargest(sums_.record());
        }
        step_.Live(beam, score, best_, sums_);
      } else {
        step_.Still(beam, score, alive);
      }
    }
    WaitFlag<HardEvent::MTE3_V>(0);
    step_.Rank(survivors_.sorter());
    const AscendC::DataCopyExtParams copy(1, static_cast<uint32_t>(t_.results) * 4, 0, 0, 0);
    const uint64_t at = static_cast<uint64_t>(group) * static_cast<uint64_t>(t_.results);
    AscendC::DataCopyPad(ids_[at], step_.beams(), copy);
    AscendC::DataCopyPad(tokens_[at], step_.tokens(), copy);
    AscendC::DataCopyPad(probs_[at], step_.scores(), copy);
    SetFlag<HardEvent::MTE3_V>(0);
    SetFlag<HardEvent::MTE3_S>(0);
    WaitFlag<HardEvent::MTE3_S>(0);
  }

  __aicore__ inline void Finish(int32_t row) {
    const int32_t i = out_;
    const LocalTensor<float> p = out_probs_[i];
    out_ ^= 1;
    WaitFlag<HardEvent::MTE3_V>(i);
    if constexpr (kRank) Rank(row);
    const int32_t count = RoundUp(t_.k, kBlock / (kEntry * 4));
    Ids(out_ids_[i], best_, count);
    Scores(p, best_, count);
    Fence();
    sums_.SetLargest(kRank && t_.whole_row != 0 ? sums_.record() : best_);
    sums_.Weigh(p, p, t_.k);
    sums_.Divide(p, t_.k, t_.whole_row != 0);
    SetFlag<HardEvent::V_MTE3>(i);
    WaitFlag<HardEvent::V_MTE3>(i);
    const AscendC::DataCopyExtParams copy(1, static_cast<uint32_t>(t_.k) * 4, 0, 0, 0);
    const uint64_t at = static_cast<uint64_t>(row) * static_cast<uint64_t>(t_.k);
    AscendC::DataCopyPad(ids_[at], out_ids_[i], copy);
    AscendC::DataCopyPad(probs_[at], p, copy);
    SetFlag<HardEvent::MTE3_V>(i);
  }

  // The survivors by their logits, which are fetched in the order of memory: of equal ones the first wins.
  __aicore__ inline void Rank(int32_t row) {
    const int32_t count = RoundUp(t_.kept, kSorted);
    AscendC::Duplicate(again_ids_, static_cast<int32_t>(0), count);
    Fence();
    Ids(again_ids_, best_, t_.keep);
    Fence();
    survivors_.Rise(again_ids_, again_, t_.kept, count);
    SetFlag<HardEvent::V_S>(0);
    WaitFlag<HardEvent::V_S>(0);
    const uint64_t from = static_cast<uint64_t>(row) * static_cast<uint64_t>(t_.row);
    for (int32_t i = 0; i < t_.kept; ++i) {
      const uint32_t at = static_cast<uint32_t>(i);
      fetched_.SetValue(at, logits_.GetValue(from + static_cast<uint64_t>(again_ids_.GetValue(at))));
    }
    SetFlag<HardEvent::S_V>(0);
    WaitFlag<HardEvent::S_V>(0);
    if constexpr (kNarrow)
      AscendC::Cast(again_, fetched_, AscendC::RoundMode::CAST_NONE, static_cast<uint32_t>(t_.kept));
    else
      AscendC::Adds(again_, fetched_, 0.0f, t_.kept);
    Fence();
    FillBehind(again_, t_.kept, Again());
    CleanFloats(again_, bits_, t_.kept);
    best_ = survivors_.sorter().Top(again_, again_ids_, count, t_.keep).entries;
  }

  TwBeamTopkTiling t_;
  GlobalTensor<T> logits_;
  GlobalTensor<float> row_max_, scores_, probs_, lists_;
  GlobalTensor<int8_t> finished_;
  GlobalTensor<int32_t> ids_, tokens_;
  LocalTensor<T> in_[2], fetched_;
  LocalTensor<half> halves_;
  LocalTensor<uint8_t> bits_;
  LocalTensor<int32_t> again_ids_, out_ids_[2];
  LocalTensor<float> wide_, code_, again_, run_[2], out_probs_[2], records_, best_;
  Sums sums_;
  Survivors survivors_;
  BeamStep step_;
  Highs highs_;
  int32_t record_ = 0, turn_ = 0, out_ = 0;
};

}  // namespace

#define TW_BEAM_TOPK(name, T, rank)                                                                        \
  extern "C" __global__ __aicore__ void name(GM_ADDR logits, GM_ADDR row_max, GM_ADDR scores,              \
                                             GM_ADDR finished, GM_ADDR ids, GM_ADDR probs, GM_ADDR tokens, \
                                             GM_ADDR workspace, GM_ADDR tiling) {                          \
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);                                                        \
    BeamTopk<T, rank> kernel;                                                                              \
    kernel.Init({logits, row_max, scores, finished, ids, probs, tokens, workspace}, tiling);               \
    kernel.Process();                                                                                      \
  }

TW_BEAM_TOPK(beam_topk_fp32, float, false)
TW_BEAM_TOPK(beam_topk_fp16, half, false)
TW_BEAM_TOPK(beam_topk_bf16, bfloat16_t, false)
TW_BEAM_TOPK(beam_topk_int8, int8_t, false)
TW_BEAM_TOPK(beam_topk_fp32_codes, float, true)
TW_BEAM_TOPK(beam_topk_fp16_codes, half, true)
TW_BEAM_TOPK(beam_topk_bf16_codes, bfloat16_t, true)
