// softmax(scale Q K^T) V for prefill, a mix of one cube core and two vector cores a block: the cube core
// multiplies, each vector core keeps the online softmax of half of the queries. One source for CANN and for
// the twin.
//
// Cube and vector cores have no path to each other on the chip, so scores, weights and sums go through
// `workspace`
// (`Workspace`, a ring for each block), handed over by flags; the cube core runs QK^T `preload` steps ahead
// of PV. Tiles of queries are dealt out to the blocks (`Walk`); blocks of keys that no query of a tile sees
// are left out.
#include "attention_cube.h"
#include "attention_vector.h"

namespace {

using tw_attention::Cube;
using tw_attention::Vector;
using tw_attention::Walk;

template <typename T>
__aicore__ inline void Attention(GM_ADDR q, GM_ADDR k, GM_ADDR v, GM_ADDR cu_q, GM_ADDR cu_k, GM_ADDR alibi,
                                 GM_ADDR o, GM_ADDR lse, GM_ADDR workspace, GM_ADDR tiling) {
  TwAttentionTiling t;
  AscendC::GlobalTensor<int32_t> words, ends_q, ends_k;
  words.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(tiling));
  int32_t* fields = reinterpret_cast<int32_t*>(&t);
  for (uint32_t i = 0; i < sizeof(TwAttentionTiling) / sizeof(int32_t); ++i) fields[i] = words.GetValue(i);
  ends_q.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(cu_q));
  ends_k.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(cu_k));
  const int32_t cores = static_cast<int32_t>(AscendC::GetBlockNum());
  Walk walk;
  if ASCEND_IS_AIC {
    walk.Start(&t, ends_q, ends_k, static_cast<int32_t>(AscendC::GetBlockIdx()), cores);
    Cube<T> cube(t);
    cube.Init(q, k, v, workspace);
    cube.Process(walk);
  }
  if ASCEND_IS_AIV {
    walk.Start(&t, ends_q, ends_k, static_cast<int32_t>(AscendC::GetBlockIdx() / 2), cores);
    Vector<T> vector(t);
    vector.Init(v, alibi, o, lse, workspace);
    vector.Process(walk);
  }
}

}  // namespace

#define TW_ATTENTION_KERNEL(name, T)                                                                      \
  extern "C" __global__ __aicore__ void name(GM_ADDR q, GM_ADDR k, GM_ADDR v, GM_ADDR cu_q, GM_ADDR cu_k, \
                                             GM_ADDR alibi, GM_ADDR o, GM_ADDR lse, GM_ADDR workspace,    \
                                             GM_ADDR tiling) {                                            \
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);                                                    \
    Attention<T>(q, k, v, cu_q, cu_k, alibi, o, lse, workspace, tiling);                                  \
  }

TW_ATTENTION_KERNEL(attention_fp16, half)
TW_ATTENTION_KERNEL(attention_bf16, bfloat16_t)
