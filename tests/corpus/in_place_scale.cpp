// x *= 3 in one buffer, and a second result in another: copies in must wait for copies out.
#include "kernel_operator.h"

using namespace AscendC;

extern "C" __global__ __aicore__ void in_place_scale(GM_ADDR x, GM_ADDR y, uint32_t tiles) {
  constexpr uint32_t kTile = 128;
  GlobalTensor<float> gx, gy;
  gx.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(x));
  gy.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(y));
  const LocalTensor<float> u(TPosition::VECCALC, 0, kTile), v(TPosition::VECCALC, 1024, kTile);
  for (uint32_t i = GetBlockIdx(); i < tiles; i += GetBlockNum()) {
    DataCopy(u, gx[i * kTile], kTile);  // @in
    SetFlag<HardEvent::MTE2_V>(EVENT_ID0);
    WaitFlag<HardEvent::MTE2_V>(EVENT_ID0);
    Muls(u, u, 3.0f, kTile);  // @scale
    //! drop no_barrier: race@offset<scale PIPE_V
    PipeBarrier<PIPE_V>();
    //! replace overlap `v, u` `u[8], u`: illegal-parameter, uninitialized-read@out_v
    Adds(v, u, 1.0f, kTile);                // @offset
    SetFlag<HardEvent::V_MTE3>(EVENT_ID0);  // @set_out
    //! drop no_wait_v_mte3: race@out_u<scale V_MTE3, race@out_v<offset V_MTE3, repeated-flag@set_out
    WaitFlag<HardEvent::V_MTE3>(EVENT_ID0);
    //! replace wrong_tile `gx[i * kTile]` `gx[0]`: race<out_u CORES
    DataCopy(gx[i * kTile], u, kTile);  // @out_u
    DataCopy(gy[i * kTile], v, kTile);  // @out_v
    //! drop no_mte3_mte2: race@in<out_u MTE3_MTE2, race@offset<out_v MTE3_V
    SetFlag<HardEvent::MTE3_MTE2>(EVENT_ID1);
    //! drop no_mte3_mte2
    WaitFlag<HardEvent::MTE3_MTE2>(EVENT_ID1);
  }
}
