// C = A[64, k] @ B[n, k]^T of a block; Fixpipe takes tiles of C over from Mmad by unit flags, not events.
#include "kernel_operator.h"

using namespace AscendC;

namespace {

constexpr uint32_t kM = 64, kK = 64, kTile = kM * kK;

}  // namespace

extern "C" __global__ __aicore__ void gemm_unit_flag(GM_ADDR a, GM_ADDR b, GM_ADDR c, uint32_t k,
                                                     uint32_t n) {
  GlobalTensor<bfloat16_t> ga, gb, gc;
  ga.SetGlobalBuffer(reinterpret_cast<__gm__ bfloat16_t*>(a) + GetBlockIdx() * kM * k);
  gb.SetGlobalBuffer(reinterpret_cast<__gm__ bfloat16_t*>(b));
  gc.SetGlobalBuffer(reinterpret_cast<__gm__ bfloat16_t*>(c) + GetBlockIdx() * kM * n);
  const LocalTensor<bfloat16_t> a1(TPosition::A1, 0, kTile), b1(TPosition::B1, 2 * kTile, kTile),
      a2(TPosition::A2, 0, kTile), b2(TPosition::B2, 0, kTile);
  const LocalTensor<float> co1(TPosition::CO1, 0, kM * kM);
  //! drop no_mte1_mte2
  SetFlag<HardEvent::MTE1_MTE2>(EVENT_ID0);
  SetFlag<HardEvent::M_MTE1>(EVENT_ID0);
  const LoadData2DParams row_of_a(0, kK / 16, kM / 16, 0, 0, false, 0);
  for (uint32_t tile = 0; tile < n / kM; ++tile) {
    for (uint32_t k0 = 0; k0 < k; k0 += kK) {
      //! drop no_mte1_mte2
      WaitFlag<HardEvent::MTE1_MTE2>(EVENT_ID0);
      const Nd2NzParams tile_of(1, kM, kK, 0, k, kM, 1, 0);
      DataCopy(a1, ga[k0], tile_of);                  // @copy_a
      DataCopy(b1, gb[tile * kM * k + k0], tile_of);  // @copy_b
      SetFlag<HardEvent::MTE2_MTE1>(EVENT_ID0);       // @set_l1
      //! drop no_wait_mte2_mte1: race@load_a<copy_a MTE2_MTE1, race@load_b<copy_b MTE2_MTE1,
      //!   repeated-flag@set_l1
      WaitFlag<HardEvent::MTE2_MTE1>(EVENT_ID0);
      WaitFlag<HardEvent::M_MTE1>(EVENT_ID0);
      for (uint32_t i = 0; i < kM / 16; ++i) LoadData(a2[i * kK * 16], a1[i * 256], row_of_a);  // @load_a
      LoadData(b2, b1, LoadData2DParams(0, 16, 1, 0, 0, false, 0));                             // @load_b
      //! drop no_mte1_mte2: race@copy_a<load_a MTE1_MTE2, race@copy_b<load_b MTE1_MTE2
      SetFlag<HardEvent::MTE1_MTE2>(EVENT_ID0);
      SetFlag<HardEvent::MTE1_M>(EVENT_ID0);
      WaitFlag<HardEvent::MTE1_M>(EVENT_ID0);
      const bool last = k0 + kK == k;
      //! replace mmad_without_unit_flag `last ? 3 : 2` `0`: race<store FIX_M, race@store<multiply M_FIX
      //! replace never_handed_over `last ? 3 : 2` `2`: deadlock@store
      //! replace no_such_unit_flag `last ? 3 : 2` `1`: illegal-parameter
      Mmad(co1, a2, b2, MmadParams(kM, kM, kK, last ? 3 : 2, false, k0 == 0));  // @multiply
      SetFlag<HardEvent::M_MTE1>(EVENT_ID0);
    }
    FixpipeParamsV220 p(kM, kM, kM, n, false);
    p.quantPre = QuantMode_t::F322BF16;
    //! drop fixpipe_without_unit_flag: race@store<multiply M_FIX, race@multiply<store FIX_M
    p.unitFlag = 3;
    Fixpipe<bfloat16_t, float, CFG_ROW_MAJOR>(gc[tile * kM], co1, p);  // @store
  }
  //! drop no_mte1_mte2
  WaitFlag<HardEvent::MTE1_MTE2>(EVENT_ID0);
  WaitFlag<HardEvent::M_MTE1>(EVENT_ID0);
}
