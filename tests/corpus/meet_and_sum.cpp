// Each vector core sums its tile, all meet, and each adds up what the others wrote.
#include "kernel_operator.h"

using namespace AscendC;

extern "C" __global__ __aicore__ void meet_and_sum(GM_ADDR x, GM_ADDR partial, GM_ADDR y) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
  constexpr uint32_t kTile = 64;
  GlobalTensor<float> gx, gp, gy;
  gx.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(x));
  gp.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(partial));
  gy.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(y));
  const uint32_t me = GetBlockIdx(), cores = GetBlockNum();
  const LocalTensor<float> t(TPosition::VECIN, 0, kTile), sum(TPosition::VECOUT, 512, 8),
      all(TPosition::VECIN, 1024, 64 * 8);
  Duplicate(sum, 0.0f, 8);
  DataCopy(t, gx[me * kTile], kTile);
  PipeBarrier<PIPE_ALL>();
  WholeReduceSum(sum, t, kTile, 1, 1, 1, 8);  // @reduce
  //! replace barrier_of_v_only `PIPE_ALL` `PIPE_V`: race@out_partial<reduce V_MTE3
  PipeBarrier<PIPE_ALL>();
  //! replace everyone_to_the_same `me * 8` `0`: race<out_partial CORES
  DataCopy(gp[me * 8], sum, 8);  // @out_partial
  //! drop never_met: race@in_all<out_partial CORES, race@in_all<out_partial MTE3_MTE2
  //! replace one_stays_away `SyncAll` `if (me != 1) SyncAll`: deadlock, race@in_all<out_partial CORES,
  //!   race@in_all<out_partial MTE3_MTE2
  SyncAll();                     // @meet
  DataCopy(all, gp, cores * 8);  // @in_all
  PipeBarrier<PIPE_ALL>();
  for (uint32_t i = 1; i < cores; ++i) {
    //! replace too_many_partials `i * 8` `i * 256`: out-of-bounds, uninitialized-read
    Add(all, all, all[i * 8], 8);  // @add
    //! drop no_barrier: race@add<add PIPE_V
    PipeBarrier<PIPE_V>();
  }
  PipeBarrier<PIPE_ALL>();
  DataCopy(gy[me * 8], all, 8);
}
