// C[M,N] = A[M,K] @ B, int8, x row_scale[M] x col_scale[N] (+ bias[N]) as fp32, bf16 or fp16: a mix of one
// cube core and two vector cores a block. The cube core multiplies into int32, the vector cores scale. One
// source for CANN and for the twin.
//
// row_scale, col_scale, bias: float; row_scale and bias may be absent. Empty M, N or K: the kernel does
// nothing; the host fills C when K is 0.
#include "gemm_finish.h"
#include "kernel_operator.h"

namespace {

using namespace tw_gemm;

template <typename Out>
__aicore__ inline void Scaled(GM_ADDR a, GM_ADDR b, GM_ADDR bias, GM_ADDR row_scale, GM_ADDR col_scale,
                              GM_ADDR c, GM_ADDR workspace, GM_ADDR tiling) {
  TwScaledTiling t;
  ReadTiling(tiling, t);
  if (t.gemm.m <= 0 || t.gemm.n <= 0 || t.gemm.k <= 0) return;
  Walk tiles;
  if ASCEND_IS_AIC {
    tiles.Start(t.gemm, static_cast<int32_t>(AscendC::GetBlockIdx()));
    Ring<int32_t> ring(workspace, t.gemm);
    Cube<int8_t, int32_t, Walk, Ring<int32_t>> cube(t.gemm, ring);
    cube.Init(a, b, nullptr);
    cube.Process(tiles);
  }
  if ASCEND_IS_AIV {
    tiles.Start(t.gemm, static_cast<int32_t>(AscendC::GetBlockIdx()) / 2);
    DenseRows<Out> rows(c, t.gemm.ldc);
    tw_kv::Room room;
    Finish<int32_t, Out, Walk, DenseRows<Out>> finish(t.gemm, t.piece_rows, rows, room);
    finish.Init(workspace,
                {t.has_row_scale != 0 ? row_scale : nullptr, col_scale, t.has_bias != 0 ? bias : nullptr});
    finish.Process(tiles);
  }
}

}  // namespace

#define TW_SCALED_KERNEL(name, Out)                                                                 \
  extern "C" __global__ __aicore__ void name(GM_ADDR a, GM_ADDR b, GM_ADDR bias, GM_ADDR row_scale, \
                                             GM_ADDR col_scale, GM_ADDR c, GM_ADDR workspace,       \
                                             GM_ADDR tiling) {                                      \
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);                                              \
    Scaled<Out>(a, b, bias, row_scale, col_scale, c, workspace, tiling);                            \
  }

TW_SCALED_KERNEL(gemm_scaled_fp32, float)
TW_SCALED_KERNEL(gemm_scaled_fp16, half)
TW_SCALED_KERNEL(gemm_scaled_bf16, bfloat16_t)
