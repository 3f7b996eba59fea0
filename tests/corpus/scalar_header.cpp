// A header of 8 words that the scalar unit writes to GM; MTE2 reads it back, and 1 is added to everything.
#include "kernel_operator.h"

using namespace AscendC;

extern "C" __global__ __aicore__ void scalar_header(GM_ADDR x, GM_ADDR y, int32_t factor) {
  GlobalTensor<int32_t> gx, gy;
  gx.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(x) + GetBlockIdx() * 16);
  gy.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(y) + GetBlockIdx() * 16);
  const LocalTensor<int32_t> t(TPosition::VECCALC, 0, 16), ones(TPosition::VECCALC, 64, 16);
  //! replace scalar_out_of_place `(i, factor)` `(i + 16 * GetBlockNum(), factor)`: out-of-bounds
  for (uint32_t i = 0; i < 8; ++i) gx.SetValue(i, factor);  // @write
  //! drop not_cleaned: stale-cache@in<write DATA_CACHE
  //! replace cleans_the_wrong_line `(gx)` `(gy)`: stale-cache@in<write DATA_CACHE
  DataCacheCleanAndInvalid<int32_t, CacheLine::SINGLE_CACHE_LINE>(gx);
  //! drop no_s_mte2: race@in<write S_MTE2
  SetFlag<HardEvent::S_MTE2>(EVENT_ID0);
  //! drop no_s_mte2
  WaitFlag<HardEvent::S_MTE2>(EVENT_ID0);
  DataCopy(t, gx, 16);     // @in
  Duplicate(ones, 1, 16);  // @fill
  SetFlag<HardEvent::MTE2_V>(EVENT_ID0);
  WaitFlag<HardEvent::MTE2_V>(EVENT_ID0);
  //! drop no_barrier: race@add<fill PIPE_V
  PipeBarrier<PIPE_V>();
  //! replace wider_than_it_is `ones, 16` `ones, 24`: out-of-bounds
  Add(t, t, ones, 16);  // @add
  SetFlag<HardEvent::V_MTE3>(EVENT_ID0);
  WaitFlag<HardEvent::V_MTE3>(EVENT_ID0);
  DataCopy(gy, t, 16);
}
