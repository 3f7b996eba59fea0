// D = half(A @ A) @ A for 16 x 16 tiles: the product in between goes from L0C back to L1.
#include "kernel_operator.h"

using namespace AscendC;

extern "C" __global__ __aicore__ void gemm_chained(GM_ADDR a, GM_ADDR d, uint32_t tiles) {
  constexpr uint32_t kTile = 16, kElements = kTile * kTile;
  GlobalTensor<half> ga;
  GlobalTensor<float> gd;
  ga.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(a));
  gd.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(d));
  const LocalTensor<half> a1(TPosition::A1, 0, kElements), middle(TPosition::A1, 512, kElements),
      a2(TPosition::A2, 0, kElements), b2(TPosition::B2, 0, kElements);
  const LocalTensor<float> co1(TPosition::CO1, 0, kElements);
  const LoadData2DParams as_it_is(0, 1, 1, 0, 0, false, 0), transposed(0, 1, 1, 0, 0, true, 0);
  const MmadParams product(kTile, kTile, kTile, 0, false, true);
  FixpipeParamsV220 to_l1(kTile, kTile, kTile, kTile, false), to_gm = to_l1;
  to_l1.quantPre = QuantMode_t::F322F16;
  SetFlag<HardEvent::MTE1_FIX>(EVENT_ID0);
  for (uint32_t i = GetBlockIdx(); i < tiles; i += GetBlockNum()) {
    PipeBarrier<PIPE_ALL>();
    DataCopy(a1, ga[i * kElements], Nd2NzParams(1, kTile, kTile, 0, kTile, kTile, 1, 0));
    SetFlag<HardEvent::MTE2_MTE1>(EVENT_ID0);
    WaitFlag<HardEvent::MTE2_MTE1>(EVENT_ID0);
    LoadData(a2, a1, as_it_is);    // @load_first
    LoadData(b2, a1, transposed);  // @load_b
    SetFlag<HardEvent::MTE1_M>(EVENT_ID0);
    WaitFlag<HardEvent::MTE1_M>(EVENT_ID0);
    Mmad(co1, a2, b2, product);  // @first
    SetFlag<HardEvent::M_FIX>(EVENT_ID0);
    //! drop no_wait_m_fix: race@back<first M_FIX, race@store<second M_FIX, repeated-flag@set_second
    WaitFlag<HardEvent::M_FIX>(EVENT_ID0);
    WaitFlag<HardEvent::MTE1_FIX>(EVENT_ID0);
    //! replace to_l1_in_rows `CFG_NZ` `CFG_ROW_MAJOR`: illegal-parameter
    Fixpipe<half, float, CFG_NZ>(middle, co1, to_l1);  // @back
    //! drop no_fix_mte1: race@load_second<back FIX_MTE1
    SetFlag<HardEvent::FIX_MTE1>(EVENT_ID0);
    //! drop no_fix_mte1
    WaitFlag<HardEvent::FIX_MTE1>(EVENT_ID0);
    LoadData(a2, middle, as_it_is);           // @load_second
    SetFlag<HardEvent::MTE1_FIX>(EVENT_ID0);  // @again
    //! drop no_mte1_m: race@second<load_second MTE1_M
    SetFlag<HardEvent::MTE1_M>(EVENT_ID0);
    //! drop no_mte1_m
    WaitFlag<HardEvent::MTE1_M>(EVENT_ID0);
    Mmad(co1, a2, b2, product);            // @second
    SetFlag<HardEvent::M_FIX>(EVENT_ID0);  // @set_second
    WaitFlag<HardEvent::M_FIX>(EVENT_ID0);
    //! replace beyond_the_end `i *` `(i + 1) *`: out-of-bounds
    Fixpipe<float, float, CFG_ROW_MAJOR>(gd[i * kElements], co1, to_gm);  // @store
  }
  //! drop left_raised: unpaired-flag@again
  WaitFlag<HardEvent::MTE1_FIX>(EVENT_ID0);
}
