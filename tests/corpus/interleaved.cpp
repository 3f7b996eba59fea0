// Even rows of 32 bytes are doubled, odd ones get 1 added: two instructions that never meet need no barrier.
#include "kernel_operator.h"

using namespace AscendC;

extern "C" __global__ __aicore__ void interleaved(GM_ADDR x, GM_ADDR y) {
  constexpr uint32_t kTile = 128;  // 16 rows of 8 floats
  GlobalTensor<float> gx, gy;
  gx.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(x) + GetBlockIdx() * kTile);
  gy.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(y) + GetBlockIdx() * kTile);
  const LocalTensor<float> t(TPosition::VECCALC, 0, kTile), sum(TPosition::VECCALC, 1024, 64);
  DataCopy(t, gx, kTile);
  SetFlag<HardEvent::MTE2_V>(EVENT_ID0);
  WaitFlag<HardEvent::MTE2_V>(EVENT_ID0);
  Muls(t, t, 2.0f, 64, 1, {2, 2, 16, 16});  // @even
  //! replace even_rows_too `t[8], t[8]` `t, t`: race<even PIPE_V
  //! replace last_row_beyond `t[8], t[8]` `t[16], t[16]`: out-of-bounds
  //! replace blocks_in_line `{2, 2, 16, 16}` `{1, 1, 16, 16}`: race<even PIPE_V
  Adds(t[8], t[8], 1.0f, 64, 1, {2, 2, 16, 16});  // @odd
  //! drop no_barrier: race@add<odd PIPE_V
  PipeBarrier<PIPE_V>();
  //! replace source_offset_misaligned `t[64]` `t[60]`: misaligned
  Add(sum, t, t[64], 64);  // @add
  SetFlag<HardEvent::V_MTE3>(EVENT_ID0);
  WaitFlag<HardEvent::V_MTE3>(EVENT_ID0);
  //! replace more_than_was_summed `sum, 64` `t, 136`: out-of-bounds
  DataCopy(gy, sum, 64);  // @out
}
