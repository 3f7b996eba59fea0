// C[T,N] = A[T,K] @ B[expert of the row][N,K]^T (x scales) (+ bias), rows sorted by expert: a mix of one cube
// core and two vector cores a block. Rows ends[e-1]..ends[e] are expert e's; what is behind the last end
// becomes 0. One source for CANN and for the twin.
//
// Without scales sums leave L0C through Fixpipe, and vector cores only write zeros. bias: float (int32 for
// int8), rows padded by the host to a multiple of 32 columns. With scales: col_scale, bias [E,N] and
// row_scale [T], float and dense. The host has seen that ends rise and stay within T; no size is 0.
#include "../gemm/gemm_direct.h"
#include "../gemm/gemm_finish.h"
#include "groups.h"
#include "kernel_operator.h"
#include "zeros.h"

namespace {

using namespace tw_gemm;
using tw_grouped::GroupWalk;

struct Arguments {
  GM_ADDR a;
  GM_ADDR b;
  GM_ADDR ends;
  GM_ADDR bias;
  GM_ADDR row_scale;
  GM_ADDR col_scale;
  GM_ADDR c;
  GM_ADDR workspace;
};

// A core's tiling and its place among the others.
class Launch {
 public:
  __aicore__ inline Launch(const Arguments& x, GM_ADDR tiling) {
    ReadTiling(tiling, t_);
    ends_.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(x.ends));
  }
  __aicore__ inline const TwGroupedTiling& tiling() const { return t_; }
  __aicore__ inline const TwGemmTiling& gemm() const { return t_.scaled.gemm; }
  __aicore__ inline uint64_t b_step() const {
    return static_cast<uint64_t>(static_cast<uint32_t>(t_.b_step_high)) << 32 |
           static_cast<uint32_t>(t_.b_step_low);
  }
  // `share`: cores of this kind in a block.
  __aicore__ inline GroupWalk Tiles(int32_t share) const {
    GroupWalk tiles;
    tiles.Start(t_, ends_, static_cast<int32_t>(AscendC::GetBlockIdx()) / share,
                static_cast<int32_t>(AscendC::GetBlockNum()));
    return tiles;
  }
  template <typename Out>
  __aicore__ inline void Zeros(tw_kv::Room& room, GM_ADDR c) const {
    int32_t begin = 0;
    for (int32_t e = 0; e < t_.experts; ++e) begin = tw_grouped::EndOf(ends_, e, begin, gemm().m);
    tw_grouped::FillZeros<Out>(room, c, begin, gemm().m, gemm().n, gemm().ldc,
                               static_cast<int32_t>(AscendC::GetBlockIdx()),
                               2 * static_cast<int32_t>(AscendC::GetBlockNum()));
  }

 private:
  TwGroupedTiling t_;
  GlobalTensor<int32_t> ends_;
};

template <typename In, typename Acc, typename Out, QuantMode_t kQuant>
__aicore__ inline void Plain(const Arguments& x, GM_ADDR tiling) {
  const Launch launch(x, tiling);
  if ASCEND_IS_AIC {
    Direct<Acc, Out, kQuant> sink(nullptr, x.c, launch.gemm().ldc);
    Cube<In, Acc, GroupWalk, Direct<Acc, Out, kQuant>> cube(launch.gemm(), sink);
    cube.Init(x.a, x.b, x.bias, launch.b_step(), static_cast<uint64_t>(launch.tiling().bias_step));
    cube.Process(launch.Tiles(1));
  }
  if ASCEND_IS_AIV {
    tw_kv::Room room;
    launch.Zeros<Out>(room, x.c);
    AscendC::PipeBarrier<PIPE_ALL>();
  }
}

template <typename Out>
__aicore__ inline void Scaled(const Arguments& x, GM_ADDR tiling) {
  const Launch launch(x, tiling);
  const TwScaledTiling& t = launch.tiling().scaled;
  if ASCEND_IS_AIC {
    Ring<int32_t> ring(x.workspace, t.gemm);
    Cube<int8_t, int32_t, GroupWalk, Ring<int32_t>> cube(t.gemm, ring);
    cube.Init(x.a, x.b, nullptr, launch.b_step());
    cube.Process(launch.Tiles(1));
  }
  if ASCEND_IS_AIV {
    tw_kv::Room room;
    launch.Zeros<Out>(room, x.c);
    DenseRows<Out> rows(x.c, t.gemm.ldc);
    Finish<int32_t, Out, GroupWalk, DenseRows<Out>> finish(t.gemm, t.piece_rows, rows, room);
    finish.Init(x.workspace, {x.row_scale, x.col_scale, t.has_bias != 0 ? x.bias : nullptr});
    finish.Process(launch.Tiles(2));
  }
}

}  // namespace

#define TW_GROUPED_KERNEL(name, ...)                                                           \
  extern "C" __global__ __aicore__ void name(GM_ADDR a, GM_ADDR b, GM_ADDR ends, GM_ADDR bias, \
                                             GM_ADDR row_scale, GM_ADDR col_scale, GM_ADDR c,  \
                                             GM_ADDR workspace, GM_ADDR tiling) {              \
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);                                         \
    __VA_ARGS__({a, b, ends, bias, row_scale, col_scale, c, workspace}, tiling);               \
  }

TW_GROUPED_KERNEL(grouped_gemm_fp32, Plain<float, float, float, QuantMode_t::NoQuant>)
TW_GROUPED_KERNEL(grouped_gemm_fp16, Plain<half, float, half, QuantMode_t::F322F16>)
TW_GROUPED_KERNEL(grouped_gemm_bf16, Plain<bfloat16_t, float, bfloat16_t, QuantMode_t::F322BF16>)
TW_GROUPED_KERNEL(grouped_gemm_int8, Plain<int8_t, int32_t, int32_t, QuantMode_t::NoQuant>)
TW_GROUPED_KERNEL(grouped_gemm_scaled_fp32, Scaled<float>)
TW_GROUPED_KERNEL(grouped_gemm_scaled_fp16, Scaled<half>)
TW_GROUPED_KERNEL(grouped_gemm_scaled_bf16, Scaled<bfloat16_t>)
