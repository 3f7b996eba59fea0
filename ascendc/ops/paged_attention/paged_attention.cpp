// Attention of few queries over paged keys and values, one source for CANN and for the twin. A mix kernel:
// L0C has no path to UB on 2201, so scores, weights and values go through a workspace that stays in L2.
//
//   cube:    q kT of step i+1 | weights v of step i
//   vector:  [dequantise step i+2] | softmax of step i+1 | totals of step i
//
// A step is some hundred tokens of a task; a task is one split of a sequence for a few kv heads. Splits meet
// once, at the end. The host plans tasks (planning.py); paged_tiling.h has their form.
#include "paged_cube.h"
#include "paged_merge.h"
#include "paged_tiling.h"
#include "paged_vector.h"

namespace {

using namespace tw_paged;

template <typename T, bool kCodes>
__aicore__ inline void Run(const Arguments& a, GM_ADDR tiling) {
  TwPagedTiling t;
  ReadTiling(t, tiling);
  if ASCEND_IS_AIC {
    Cube<std::conditional_t<kCodes, half, T>, kCodes> cube;
    cube.Init(a, t);
    cube.Process();
  }
  if ASCEND_IS_AIV {
    {
      Vector<T, kCodes> vector;
      vector.Init(a, t);
      vector.Process();
    }
    if (t.merges == 0) return;
    GlobalTensor<int32_t> plan;
    plan.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(a.plan));
    AscendC::SyncAll();
    Merge<T> merge;
    merge.Init(a, t, plan.GetValue(t.cores));
    merge.Process();
  }
}

}  // namespace

#define TW_PAGED_KERNEL(name, T, codes)                                                                  \
  extern "C" __global__ __aicore__ void name(                                                            \
      GM_ADDR q, GM_ADDR block_table, GM_ADDR plan, GM_ADDR k_cache, GM_ADDR v_cache, GM_ADDR k_scale,   \
      GM_ADDR v_scale, GM_ADDR k_mask, GM_ADDR k_rank, GM_ADDR k_pool, GM_ADDR k_fmask, GM_ADDR k_frank, \
      GM_ADDR k_fpool, GM_ADDR v_mask, GM_ADDR v_rank, GM_ADDR v_pool, GM_ADDR v_fmask, GM_ADDR v_frank, \
      GM_ADDR v_fpool, GM_ADDR alibi, GM_ADDR o, GM_ADDR lse, GM_ADDR workspace, GM_ADDR tiling) {       \
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);                                                   \
    Run<T, codes>({q,       block_table, plan,    k_cache, v_cache, k_scale, v_scale,  k_mask,           \
                   k_rank,  k_pool,      k_fmask, k_frank, k_fpool, v_mask,  v_rank,   v_pool,           \
                   v_fmask, v_frank,     v_fpool, alibi,   o,       lse,     workspace},                 \
                  tiling);                                                                               \
  }

TW_PAGED_KERNEL(paged_attention_fp32, float, false)
TW_PAGED_KERNEL(paged_attention_fp16, half, false)
TW_PAGED_KERNEL(paged_attention_bf16, bfloat16_t, false)
TW_PAGED_KERNEL(paged_attention_fp16_codes, half, true)
TW_PAGED_KERNEL(paged_attention_bf16_codes, bfloat16_t, true)
