// y = relu(A @ A) of 16 x 16 tiles: the cube core multiplies into a workspace, its two vector cores each take
// half, and hand the workspace back.
#include "kernel_operator.h"

using namespace AscendC;

namespace {

constexpr uint32_t kTile = 16, kElements = kTile * kTile, kHalf = kElements / 2;
constexpr uint16_t kFull = 0, kFree = 1;

__aicore__ inline void Cube(const GlobalTensor<half>& x, const GlobalTensor<float>& work, uint32_t rounds) {
  const LocalTensor<half> a1(TPosition::A1, 0, kElements), a2(TPosition::A2, 0, kElements),
      b2(TPosition::B2, 0, kElements);
  const LocalTensor<float> co1(TPosition::CO1, 0, kElements);
  for (uint32_t i = 0; i < rounds; ++i) {
    DataCopy(a1, x[i * kElements], Nd2NzParams(1, kTile, kTile, 0, kTile, kTile, 1, 0));
    PipeBarrier<PIPE_ALL>();
    LoadData(a2, a1, LoadData2DParams(0, 1, 1, 0, 0, false, 0));
    LoadData(b2, a1, LoadData2DParams(0, 1, 1, 0, 0, true, 0));
    SetFlag<HardEvent::MTE1_MTE2>(EVENT_ID0);
    WaitFlag<HardEvent::MTE1_MTE2>(EVENT_ID0);
    SetFlag<HardEvent::MTE1_M>(EVENT_ID0);
    WaitFlag<HardEvent::MTE1_M>(EVENT_ID0);
    Mmad(co1, a2, b2, MmadParams(kTile, kTile, kTile, 0, false, true));
    SetFlag<HardEvent::M_FIX>(EVENT_ID0);
    WaitFlag<HardEvent::M_FIX>(EVENT_ID0);
    //! drop no_wait_for_the_vector_cores: race@store<take CORES, cross-flag@hand_back
    //! replace waits_for_another_flag `kFree` `kFree + 1`: deadlock, cross-flag@hand_back
    if (i > 0) CrossCoreWaitFlag<2, PIPE_FIX>(kFree);  // @wait_free
    const FixpipeParamsV220 p(kTile, kTile, kTile, kTile, false);
    Fixpipe<float, float, CFG_ROW_MAJOR>(work, co1, p);  // @store
    //! drop no_set_full: deadlock@wait_full
    //! replace of_the_wrong_pipe `PIPE_FIX` `PIPE_MTE2`: race@take<store CORES, race@store<take CORES
    //! replace set_twice `;` `, CrossCoreSetFlag<2, PIPE_FIX>(kFull);`: cross-flag, race@store<take CORES
    //! replace mode_of_vector_cores `<2, PIPE_FIX>` `<1, PIPE_FIX>`: wrong-core, deadlock@wait_full
    //! replace no_such_flag `kFull` `kFull + 11`: deadlock@wait_full, cross-flag
    //! replace of_no_pipe `PIPE_FIX` `PIPE_S`: illegal-parameter, deadlock@wait_full
    CrossCoreSetFlag<2, PIPE_FIX>(kFull);  // @hand_over
  }
}

__aicore__ inline void Vector(const GlobalTensor<float>& work, const GlobalTensor<float>& y,
                              uint32_t rounds) {
  const LocalTensor<float> t(TPosition::VECCALC, 0, kHalf);
  for (uint32_t i = 0; i < rounds; ++i) {
    //! drop no_wait_for_the_cube: race@take<store CORES, race@store<take CORES,
    //!   cross-flag@hand_over
    CrossCoreWaitFlag<2, PIPE_MTE2>(kFull);  // @wait_full
    DataCopy(t, work, kHalf);                // @take
    //! drop never_handed_back: deadlock@wait_free
    //! replace one_core_forgets `if (` `if (GetSubBlockIdx() == 0 && `: deadlock@wait_free, cross-flag
    if (i + 1 < rounds) CrossCoreSetFlag<2, PIPE_MTE2>(kFree);  // @hand_back
    SetFlag<HardEvent::MTE2_V>(EVENT_ID0);
    WaitFlag<HardEvent::MTE2_V>(EVENT_ID0);
    Relu(t, t, kHalf);  // @relu
    SetFlag<HardEvent::V_MTE3>(EVENT_ID0);
    WaitFlag<HardEvent::V_MTE3>(EVENT_ID0);
    //! replace both_write_the_same `kElements]` `kElements - GetSubBlockIdx() * kHalf]`: race<out CORES
    DataCopy(y[i * kElements], t, kHalf);  // @out
    SetFlag<HardEvent::MTE3_MTE2>(EVENT_ID0);
    WaitFlag<HardEvent::MTE3_MTE2>(EVENT_ID0);
  }
}

}  // namespace

extern "C" __global__ __aicore__ void mixed_workspace(GM_ADDR x, GM_ADDR work, GM_ADDR y, uint32_t rounds) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
  GlobalTensor<half> gx;
  GlobalTensor<float> gw, gy;
  if ASCEND_IS_AIC {
    gx.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(x) + GetBlockIdx() * rounds * kElements);
    gw.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(work) + GetBlockIdx() * kElements);
    Cube(gx, gw, rounds);
  }
  if ASCEND_IS_AIV {
    const uint64_t group = GetBlockIdx() / 2, part = GetSubBlockIdx() * kHalf;
    gw.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(work) + group * kElements + part);
    gy.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(y) + group * rounds * kElements + part);
    Vector(gw, gy, rounds);
  }
}
