// Vector cores pass a block of 8 numbers to the next one, and meet by a flag of mode 0.
#include "kernel_operator.h"

using namespace AscendC;

extern "C" __global__ __aicore__ void neighbours(GM_ADDR work, GM_ADDR y) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
  GlobalTensor<int32_t> gw, gy;
  gw.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(work));
  gy.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(y));
  const int32_t me = GetBlockIdx(), next = (me + 1) % GetBlockNum();
  const LocalTensor<int32_t> t(TPosition::VECCALC, 0, 8);
  //! replace never_filled `Duplicate(t, me, 8);` `;`: uninitialized-read@give
  Duplicate(t, me, 8);                    // @fill
  SetFlag<HardEvent::V_MTE3>(EVENT_ID0);  // @set_give
  //! drop no_wait_v_mte3: race@give<fill V_MTE3, unpaired-flag@set_give
  WaitFlag<HardEvent::V_MTE3>(EVENT_ID0);
  DataCopy(gw[me * 8], t, 8);  // @give
  //! replace raised_by_all_but_one `CrossCoreSetFlag` `if (me != 1) CrossCoreSetFlag`: deadlock@wait,
  //!   cross-flag
  //! replace before_it_is_written `PIPE_MTE3` `PIPE_V`: race@take<give CORES
  CrossCoreSetFlag<0, PIPE_MTE3>(3);  // @raise
  //! drop waits_for_nobody: race@take<give CORES, cross-flag@raise
  CrossCoreWaitFlag<0, PIPE_MTE2>(3);        // @wait
  SetFlag<HardEvent::MTE3_MTE2>(EVENT_ID0);  // @set_free
  //! drop needless_wait: unpaired-flag@set_free
  WaitFlag<HardEvent::MTE3_MTE2>(EVENT_ID0);
  DataCopy(t, gw[next * 8], 8);  // @take
  SetFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
  WaitFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
  DataCopy(gy[me * 8], t, 8);
}
