// What both kinds of cores share: the plan and the order of its steps, the workspace, the flags.
#pragma once

#include <type_traits>

#include "../gemm/gemm_load.h"
#include "kernel_operator.h"
#include "paged_tiling.h"

namespace tw_paged {

using AscendC::GlobalTensor;
using AscendC::HardEvent;
using AscendC::LocalTensor;
using AscendC::SetFlag;
using AscendC::TBuf;
using AscendC::TPosition;
using AscendC::WaitFlag;
using tw_gemm::CeilDiv;
using tw_gemm::Min;
using tw_gemm::RoundUp;

constexpr int32_t kPage = 16;  // tokens
constexpr int32_t kFractal = 16;
constexpr uint32_t kUnit = 512;  // bytes, of workspace offsets
// Between a cube core and its two vector cores: scores are in the workspace, weights are, values are, keys
// and values of a step are dequantised.
constexpr uint16_t kScores = 0, kWeights = 1, kValues = 2, kKeys = 3;
// Slots of each kind in the workspace of a core. Keys take three: those of one step are written while the
// cube reads the second and multiplies by the values of the third.
constexpr int32_t kSlots = 2, kKeySlots = 3;

__aicore__ inline int32_t Max(int32_t a, int32_t b) { return a > b ? a : b; }

struct Arguments {
  GM_ADDR q;
  GM_ADDR block_table;
  GM_ADDR plan;
  GM_ADDR k_cache;
  GM_ADDR v_cache;
  GM_ADDR k_scale;
  GM_ADDR v_scale;
  GM_ADDR k_mask;
  GM_ADDR k_rank;
  GM_ADDR k_pool;
  GM_ADDR k_fmask;
  GM_ADDR k_frank;
  GM_ADDR k_fpool;
  GM_ADDR v_mask;
  GM_ADDR v_rank;
  GM_ADDR v_pool;
  GM_ADDR v_fmask;
  GM_ADDR v_frank;
  GM_ADDR v_fpool;
  GM_ADDR alibi;
  GM_ADDR o;
  GM_ADDR lse;
  GM_ADDR workspace;
};

// The tokens that go through one softmax together: `count` of them from `begin` on.
struct Step {
  TwPagedTask task;
  int32_t begin, count;
  uint32_t number, task_number;  // of this core's
  bool valid, first, last;

  // How many of the step's tokens query `i` of the task sees.
  __aicore__ inline int32_t Visible(int32_t i) const {
    return Max(Min(task.position + i + 1 - begin, count), 0);
  }
  __aicore__ inline bool AllVisible() const { return Visible(0) == count; }
};

__aicore__ inline void ReadTiling(TwPagedTiling& tiling, GM_ADDR from) {
  GlobalTensor<int32_t> words;
  words.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(from));
  int32_t* fields = reinterpret_cast<int32_t*>(&tiling);
  for (uint32_t i = 0; i < sizeof(TwPagedTiling) / sizeof(int32_t); ++i) fields[i] = words.GetValue(i);
}

class Walk {
 public:
  __aicore__ inline void Init(GM_ADDR plan, int32_t core, int32_t cores, int32_t step_tokens) {
    plan_.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(plan));
    first_record_ = cores + 1;
    next_ = plan_.GetValue(core);
    end_ = plan_.GetValue(core + 1);
    step_tokens_ = step_tokens;
  }
  __aicore__ inline void First(Step& s) {
    s.number = 0;
    s.task_number = 0;
    s.valid = next_ < end_;
    if (s.valid) Enter(s);
  }
  __aicore__ inline void Next(Step& s) {
    if (!s.valid) return;
    ++s.number;
    if (!s.last) return Place(s, s.begin + step_tokens_);
    ++s.task_number;
    s.valid = next_ < end_;
    if (s.valid) Enter(s);
  }

 private:
  __aicore__ inline void Enter(Step& s) {
    int32_t* fields = reinterpret_cast<int32_t*>(&s.task);
    constexpr int32_t kWords = sizeof(TwPagedTask) / sizeof(int32_t);
    for (int32_t i = 0; i < kWords; ++i)
      fields[i] = plan_.GetValue(static_cast<uint64_t>(first_record_) + next_ * kWords + i);
    ++next_;
    Place(s, 0);
  }
  __aicore__ inline void Place(Step& s, int32_t begin) {
    s.begin = begin;
    s.count = Min(step_tokens_, s.task.tokens - begin);
    s.first = begin == 0;
    s.last = begin + s.count >= s.task.tokens;
  }

  GlobalTensor<int32_t> plan_;
  int32_t first_record_, next_, end_, step_tokens_;
};

// This core's part of one kind of data in the workspace.
template <typename T>
__aicore__ inline GlobalTensor<T> Part(GM_ADDR workspace, int32_t offset, int32_t core, uint64_t elements) {
  GlobalTensor<T> tensor;
  tensor.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(workspace + static_cast<uint64_t>(offset) * kUnit) +
                         core * elements);
  return tensor;
}

template <TPosition position, typename T>
__aicore__ inline LocalTensor<T> Take(AscendC::TPipe& pipe, int32_t elements) {
  TBuf<position> buffer;
  pipe.InitBuffer(buffer, static_cast<uint32_t>(elements * static_cast<int32_t>(sizeof(T))));
  return buffer.template Get<T>();
}

}  // namespace tw_paged
