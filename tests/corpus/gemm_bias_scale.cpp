// C = half((A[32, 64] @ B[n, 64]^T + bias) * scale) in int8, bias and scale one for each column.
#include "kernel_operator.h"

using namespace AscendC;

namespace {

constexpr uint32_t kM = 32, kK = 64, kTile = kM * kK;

}  // namespace

extern "C" __global__ __aicore__ void gemm_bias_scale(GM_ADDR a, GM_ADDR b, GM_ADDR bias, GM_ADDR scale,
                                                      GM_ADDR c, uint32_t n) {
  GlobalTensor<int8_t> ga, gb;
  GlobalTensor<int32_t> gbias;
  GlobalTensor<uint64_t> gscale;
  GlobalTensor<half> gc;
  ga.SetGlobalBuffer(reinterpret_cast<__gm__ int8_t*>(a) + GetBlockIdx() * kTile);
  gb.SetGlobalBuffer(reinterpret_cast<__gm__ int8_t*>(b));
  gbias.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(bias));
  gscale.SetGlobalBuffer(reinterpret_cast<__gm__ uint64_t*>(scale));
  gc.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(c) + GetBlockIdx() * kM * n);
  const LocalTensor<int8_t> a1(TPosition::A1, 0, kTile), b1(TPosition::B1, kTile, kTile),
      a2(TPosition::A2, 0, kTile), b2(TPosition::B2, 0, kTile);
  const LocalTensor<int32_t> bias1(TPosition::C1, 2 * kTile, kM), bias2(TPosition::C2, 0, kM);
  const LocalTensor<uint64_t> scale1(TPosition::C1, 3 * kTile, kM);
  const LocalTensor<int32_t> co1(TPosition::CO1, 0, kM * kM);
  DataCopy(a1, ga, Nd2NzParams(1, kM, kK, 0, kK, kM, 1, 0));
  PipeBarrier<PIPE_ALL>();
  const LoadData2DParams row_of_a(0, 2, 2, 0, 0, false, 0);
  for (uint32_t row = 0; row < 2; ++row) LoadData(a2[row * 1024], a1[row * 512], row_of_a);
  for (uint32_t n0 = 0; n0 < n; n0 += kM) {
    DataCopy(b1, gb[n0 * kK], Nd2NzParams(1, kM, kK, 0, kK, kM, 1, 0));
    DataCopy(bias1, gbias[n0], kM);  // @copy_bias
    SetFlag<HardEvent::MTE2_MTE1>(EVENT_ID0);
    WaitFlag<HardEvent::MTE2_MTE1>(EVENT_ID0);
    LoadData(b2, b1, LoadData2DParams(0, 4, 1, 0, 0, false, 0));
    //! swap bias_after_the_flag: race@multiply<bias_table MTE1_M
    DataCopy(bias2, bias1, DataCopyParams(1, 2, 0, 0));  // @bias_table
    SetFlag<HardEvent::MTE1_M>(EVENT_ID0);
    WaitFlag<HardEvent::MTE1_M>(EVENT_ID0);
    MmadParams p(kM, kM, kK, 0, false, false);
    //! replace bias_and_zero `bias2, p` `bias2, MmadParams(kM, kM, kK, 0, false, true)`: illegal-parameter
    //! replace bias_from_l1 `bias2, p` `bias1, p`: illegal-memory
    Mmad(co1, a2, b2, bias2, p);  // @multiply
    SetFlag<HardEvent::M_FIX>(EVENT_ID0);
    WaitFlag<HardEvent::M_FIX>(EVENT_ID0);
    DataCopy(scale1, gscale[n0], kM);  // @copy_scale
    //! drop no_mte2_fix: race@store<copy_scale MTE2_FIX
    SetFlag<HardEvent::MTE2_FIX>(EVENT_ID0);
    //! drop no_mte2_fix
    WaitFlag<HardEvent::MTE2_FIX>(EVENT_ID0);
    FixpipeParamsV220 f(kM, kM, kM, n, false);
    //! replace scale_without_its_mode `VDEQF16` `DEQF16`: illegal-parameter@store
    f.quantPre = QuantMode_t::VDEQF16;
    Fixpipe<half, int32_t, CFG_ROW_MAJOR>(gc[n0], co1, scale1, f);  // @store
    //! drop no_fix_mte2: race@copy_scale<store FIX_MTE2
    SetFlag<HardEvent::FIX_MTE2>(EVENT_ID1);
    //! drop no_fix_mte2
    WaitFlag<HardEvent::FIX_MTE2>(EVENT_ID1);
    SetFlag<HardEvent::FIX_M>(EVENT_ID1);
    WaitFlag<HardEvent::FIX_M>(EVENT_ID1);
    SetFlag<HardEvent::MTE1_MTE2>(EVENT_ID1);
    WaitFlag<HardEvent::MTE1_MTE2>(EVENT_ID1);
    SetFlag<HardEvent::M_MTE1>(EVENT_ID1);
    WaitFlag<HardEvent::M_MTE1>(EVENT_ID1);
  }
}
