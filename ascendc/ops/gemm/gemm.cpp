// C[M,N] = A[M,K] @ B (+ bias[N]) on the cube cores, one source for CANN and for the twin.
//
// Each core owns a rectangle of output tiles, which leave L0C through Fixpipe.
//
// bias: float (int32 for int8), padded by the host to a multiple of 32 columns; added before any scaling.
// scale: for gemm_int8_fp16, one uint64 a column as VDEQF16 takes it, padded likewise.
// Empty M, N or K: the kernel does nothing; the host fills C when K is 0.
#include "gemm_direct.h"
#include "kernel_operator.h"

namespace {

using namespace tw_gemm;

template <typename In, typename Acc, typename Out, QuantMode_t kQuant>
__aicore__ inline void Gemm(GM_ADDR a, GM_ADDR b, GM_ADDR bias, GM_ADDR scale, GM_ADDR c, GM_ADDR tiling) {
  TwGemmTiling t;
  ReadTiling(tiling, t);
  if (t.m <= 0 || t.n <= 0 || t.k <= 0) return;
  Walk tiles;
  tiles.Start(t, static_cast<int32_t>(AscendC::GetBlockIdx()));
  Direct<Acc, Out, kQuant> sink(scale, c, t.ldc);
  Cube<In, Acc, Walk, Direct<Acc, Out, kQuant>> cube(t, sink);
  cube.Init(a, b, bias);
  cube.Process(tiles);
}

}  // namespace

#define TW_GEMM_KERNEL(name, In, Acc, Out, quant)                                                          \
  extern "C" __global__ __aicore__ void name(GM_ADDR a, GM_ADDR b, GM_ADDR bias, GM_ADDR scale, GM_ADDR c, \
                                             GM_ADDR workspace, GM_ADDR tiling) {                          \
    (void)workspace;                                                                                       \
    Gemm<In, Acc, Out, quant>(a, b, bias, scale, c, tiling);                                               \
  }

TW_GEMM_KERNEL(gemm_fp32, float, float, float, QuantMode_t::NoQuant)
TW_GEMM_KERNEL(gemm_fp16, half, float, half, QuantMode_t::F322F16)
TW_GEMM_KERNEL(gemm_fp16_fp32, half, float, float, QuantMode_t::NoQuant)
TW_GEMM_KERNEL(gemm_bf16, bfloat16_t, float, bfloat16_t, QuantMode_t::F322BF16)
TW_GEMM_KERNEL(gemm_int8, int8_t, int32_t, int32_t, QuantMode_t::NoQuant)
TW_GEMM_KERNEL(gemm_int8_fp16, int8_t, int32_t, half, QuantMode_t::VDEQF16)
