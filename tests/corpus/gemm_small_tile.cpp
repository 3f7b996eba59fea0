// C[32, 32] = A[32, k] @ B[32, k]^T of each block: 4 fractals of C, so Mmads that accumulate need a barrier.
#include "kernel_operator.h"

using namespace AscendC;

namespace {

constexpr uint32_t kM = 32, kK = 32, kTile = kM * kK;

}  // namespace

extern "C" __global__ __aicore__ void gemm_small_tile(GM_ADDR a, GM_ADDR b, GM_ADDR c, uint32_t k) {
  GlobalTensor<half> ga, gb;
  GlobalTensor<half> gc;
  ga.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(a) + GetBlockIdx() * kM * k);
  gb.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(b) + GetBlockIdx() * kM * k);
  gc.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(c) + GetBlockIdx() * kM * kM);
  TPipe pipe;
  TBuf<TPosition::A1> a1_buffer;
  TBuf<TPosition::B1> b1_buffer;
  TBuf<TPosition::A2> a2_buffer;
  TBuf<TPosition::B2> b2_buffer;
  TBuf<TPosition::CO1> co1_buffer;
  pipe.InitBuffer(a1_buffer, 8 * kTile * sizeof(half));  // @hold_a1
  //! replace l1_full `8 * kTile` `256 * kTile`: capacity
  pipe.InitBuffer(b1_buffer, 8 * kTile * sizeof(half));  // @hold_b1
  //! replace l0a_full `8 *` `33 *`: capacity
  pipe.InitBuffer(a2_buffer, 8 * kTile * sizeof(half));
  pipe.InitBuffer(b2_buffer, 8 * kTile * sizeof(half));
  pipe.InitBuffer(co1_buffer, kM * kM * sizeof(float));
  const LocalTensor<half> a1 = a1_buffer.Get<half>(), b1 = b1_buffer.Get<half>(), a2 = a2_buffer.Get<half>(),
                          b2 = b2_buffer.Get<half>();
  const LocalTensor<float> co1 = co1_buffer.Get<float>();
  const uint8_t steps = static_cast<uint8_t>(k / kK);
  //! replace row_past_the_end `kM, k, 0, k, kM` `kM + 1, k, 0, k, kM + 1`: out-of-bounds
  DataCopy(a1, ga, Nd2NzParams(1, kM, k, 0, k, kM, 1, 0));  // @copy_a
  DataCopy(b1, gb, Nd2NzParams(1, kM, k, 0, k, kM, 1, 0));  // @copy_b
  SetFlag<HardEvent::MTE2_MTE1>(EVENT_ID0);                 // @set_l1
  //! drop no_wait_mte2_mte1: race@load_a<copy_a MTE2_MTE1, race@load_b<copy_b MTE2_MTE1, unpaired-flag@set_l1
  WaitFlag<HardEvent::MTE2_MTE1>(EVENT_ID0);
  const LoadData2DParams row_of_a(0, 2, 2, 0, 0, false, 0), all_of_b(0, 4, 1, 0, 0, false, 0);
  for (uint32_t i = 0; i < steps; ++i) {
    for (uint32_t row = 0; row < 2; ++row)
      LoadData(a2[i * kTile + row * kM * 16], a1[i * kTile + row * 256], row_of_a);  // @load_a
    LoadData(b2[i * kTile], b1[i * kTile], all_of_b);                                // @load_b
  }
  SetFlag<HardEvent::MTE1_M>(EVENT_ID0);

  WaitFlag<HardEvent::MTE1_M>(EVENT_ID0);  // @wait_l0
  for (uint32_t i = 0; i < steps; ++i) {
    //! replace m_out_of_range `kM, kM, kK` `4096, kM, kK`: illegal-parameter
    Mmad(co1, a2[i * kTile], b2[i * kTile], MmadParams(kM, kM, kK, 0, false, i == 0));  // @multiply
    //! drop no_barrier: race@multiply<multiply PIPE_M
    //! replace barrier_of_another_pipe `PIPE_M` `PIPE_MTE1`: race@multiply<multiply PIPE_M
    PipeBarrier<PIPE_M>();
  }
  SetFlag<HardEvent::M_FIX>(EVENT_ID0);  // @set_fix
  //! drop no_wait_m_fix: race@store<multiply M_FIX, unpaired-flag@set_fix
  WaitFlag<HardEvent::M_FIX>(EVENT_ID0);
  FixpipeParamsV220 p(kM, kM, kM, kM, false);
  //! drop not_converted: illegal-parameter@store
  p.quantPre = QuantMode_t::F322F16;
  Fixpipe<half, float, CFG_ROW_MAJOR>(gc, co1, p);  // @store
}
