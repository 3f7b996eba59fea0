// The two vector cores of each group exchange halves by a flag of mode 1.
#include "kernel_operator.h"

using namespace AscendC;

extern "C" __global__ __aicore__ void swap_halves(GM_ADDR x, GM_ADDR work, GM_ADDR y) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
  if ASCEND_IS_AIV {
    GlobalTensor<int32_t> gx, gw, gy;
    gx.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(x));
    gw.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(work));
    gy.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(y));
    const uint32_t me = GetBlockIdx(), other = me ^ 1;
    const LocalTensor<int32_t> t(TPosition::VECCALC, 0, 64);
    DataCopy(t, gx[me * 64], 64);
    PipeBarrier<PIPE_ALL>();
    DataCopy(gw[me * 64], t, 64);  // @give
    //! replace of_a_pipe_that_is_idle `PIPE_MTE3` `PIPE_V`: race@take<give CORES
    CrossCoreSetFlag<1, PIPE_MTE3>(5);  // @raise
    //! replace waits_for_the_cube `(5)` `(6)`: deadlock, cross-flag@raise
    CrossCoreWaitFlag<1, PIPE_S>(5);  // @wait
    PipeBarrier<PIPE_ALL>();
    DataCopy(t, gw[other * 64], 64);  // @take
    PipeBarrier<PIPE_ALL>();
    DataCopy(gy[me * 64], t, 64);
  }
}
