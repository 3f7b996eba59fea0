// C[M,N] = A[M,K] @ W[N,K]^T (+ bias[N]), W of 4-bit codes with scales by groups of k: a mix of one cube core
// and two vector cores a block, one source for CANN and for the twin.
//
// The vector cores dequantise a chunk of the weights of an output tile after the other into a ring in the
// workspace, half of its columns each; the cube core multiplies what has come. A tile's weights are
// dequantised anew for each tile of rows. Empty M, N or K: the kernel does nothing.
#include "dequantise.h"
#include "multiply.h"

namespace {

struct Arguments {
  GM_ADDR a;
  GM_ADDR b;
  GM_ADDR scale;
  GM_ADDR zero;
  GM_ADDR minimum;
  GM_ADDR bias;
  GM_ADDR c;
  GM_ADDR workspace;
};

template <typename T, QuantMode_t kQuant, bool kHalf>
__aicore__ inline void GemmW4(const Arguments& x, GM_ADDR tiling) {
  TwGemmW4Tiling t;
  tw_kv::ReadTiling(tiling, t);
  if (t.m <= 0 || t.n <= 0 || t.k <= 0) return;
  if ASCEND_IS_AIC {
    tw_w4::Multiplier<T, kQuant> cube(t);
    cube.Init(x.a, x.c, x.workspace);
    cube.Process();
  }
  if ASCEND_IS_AIV {
    tw_w4::Dequantiser<T, kHalf> vector(t);
    vector.Init(x.b, x.scale, x.zero, x.minimum, x.bias, x.workspace);
    vector.Process();
  }
}

}  // namespace

#define TW_GEMM_W4(name, T, quant, is_half)                                                               \
  extern "C" __global__ __aicore__ void name(GM_ADDR a, GM_ADDR b, GM_ADDR scale, GM_ADDR zero,           \
                                             GM_ADDR minimum, GM_ADDR bias, GM_ADDR c, GM_ADDR workspace, \
                                             GM_ADDR tiling) {                                            \
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);                                                    \
    GemmW4<T, quant, is_half>({a, b, scale, zero, minimum, bias, c, workspace}, tiling);                  \
  }

TW_GEMM_W4(gemm_w4_fp16, half, QuantMode_t::F322F16, true)
TW_GEMM_W4(gemm_w4_bf16, bfloat16_t, QuantMode_t::F322BF16, false)
