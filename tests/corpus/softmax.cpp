// Rows of 64 floats: y = exp(x - max) / sum, eight rows a tile.
#include "kernel_operator.h"

using namespace AscendC;

namespace {

constexpr uint32_t kColumns = 64, kRows = 8, kTile = kRows * kColumns;

}  // namespace

extern "C" __global__ __aicore__ void softmax(GM_ADDR x, GM_ADDR y) {
  const uint64_t at = GetBlockIdx() * kTile;
  GlobalTensor<float> gx, gy;
  gx.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(x) + at, kTile);
  gy.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(y) + at, kTile);
  TPipe pipe;
  TBuf<TPosition::VECCALC> tile_buffer, one_buffer, spread_buffer;
  pipe.InitBuffer(tile_buffer, kTile * sizeof(float));
  pipe.InitBuffer(one_buffer, 32);
  //! replace small_spread `kRows * 32` `kRows * 16`: out-of-bounds@spread_max, out-of-bounds@subtract,
  //!   out-of-bounds@spread_sum, out-of-bounds@divide
  pipe.InitBuffer(spread_buffer, kRows * 32);
  LocalTensor<float> t = tile_buffer.Get<float>(), one = one_buffer.Get<float>(),
                     spread = spread_buffer.Get<float>();
  DataCopy(t, gx, kTile);  // @in
  //! drop no_mte2_v: race@max<in MTE2_V
  SetFlag<HardEvent::MTE2_V>(EVENT_ID0);
  //! drop no_mte2_v
  WaitFlag<HardEvent::MTE2_V>(EVENT_ID0);
  //! replace mask_too_wide `kColumns, kRows` `kColumns + 1, kRows`: illegal-parameter
  //! replace repeat_too_often `kColumns, kRows` `kColumns, 256`: illegal-parameter,
  //!   uninitialized-read@spread_max
  WholeReduceMax(one, t, kColumns, kRows, 1, 1, 8, ReduceOrder::ORDER_ONLY_VALUE);  // @max
  //! drop no_barrier_max: race@spread_max<max PIPE_V
  PipeBarrier<PIPE_V>();
  //! drop never_spread: uninitialized-read@subtract
  Brcb(spread, one, 1, {1, 8});  // @spread_max
  //! drop no_barrier_spread: race@subtract<spread_max PIPE_V
  PipeBarrier<PIPE_V>();
  //! replace stride_too_long `8, 8, 1}` `8, 16, 1}`: out-of-bounds
  Sub(t, t, spread, kColumns, kRows, {1, 1, 0, 8, 8, 1});  // @subtract
  //! drop no_barrier_subtract: race@exp<subtract PIPE_V
  PipeBarrier<PIPE_V>();
  Exp(t, t, kTile);  // @exp
  PipeBarrier<PIPE_V>();
  WholeReduceSum(one, t, kColumns, kRows, 1, 1, 8);  // @sum
  PipeBarrier<PIPE_V>();
  //! replace misaligned_spread `spread, one` `spread[4], one`: misaligned, out-of-bounds
  Brcb(spread, one, 1, {1, 8});  // @spread_sum
  PipeBarrier<PIPE_V>();
  Div(t, t, spread, kColumns, kRows, {1, 1, 0, 8, 8, 1});  // @divide
  SetFlag<HardEvent::V_MTE3>(EVENT_ID0);
  //! swap copied_too_early: race@out<divide V_MTE3
  WaitFlag<HardEvent::V_MTE3>(EVENT_ID0);
  DataCopy(gy, t, kTile);  // @out
}
