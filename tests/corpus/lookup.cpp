// y[i] = table[x[i]]: the scalar unit reads and writes UB and GM, element by element.
#include "kernel_operator.h"

using namespace AscendC;

extern "C" __global__ __aicore__ void lookup(GM_ADDR x, GM_ADDR table, GM_ADDR y) {
  constexpr uint32_t kTile = 32;
  GlobalTensor<int32_t> gx, gt, gy;
  gx.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(x) + GetBlockIdx() * kTile);
  gt.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(table));
  gy.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(y) + GetBlockIdx() * kTile);
  const LocalTensor<int32_t> keys(TPosition::VECIN, 0, kTile), found(TPosition::VECOUT, 1024, kTile);
  for (uint32_t round = 0; round < 2; ++round) {
    DataCopy(keys, gx, kTile);              // @in
    SetFlag<HardEvent::MTE2_S>(EVENT_ID0);  // @set_in
    //! drop no_mte2_s: race@read<in MTE2_S, repeated-flag@set_in
    WaitFlag<HardEvent::MTE2_S>(EVENT_ID0);
    for (uint32_t i = 0; i < kTile; ++i) {
      //! replace key_past_the_end `GetValue(i)` `GetValue(i + 1)`: out-of-bounds
      const int32_t key = keys.GetValue(i) & 63;  // @read
      //! insert asserted `assert(key < 0);`: assertion
      //! insert wild_pointer `*reinterpret_cast<volatile int32_t*>(8) = key;`: fault@read
      //! replace table_past_the_end `GetValue(key)` `GetValue(key + 64)`: out-of-bounds
      const int32_t value = gt.GetValue(key);
      found.SetValue(i, value);  // @write
    }
    //! drop no_s_mte3: race@out<write S_MTE3
    SetFlag<HardEvent::S_MTE3>(EVENT_ID0);
    //! drop no_s_mte3
    WaitFlag<HardEvent::S_MTE3>(EVENT_ID0);
    DataCopy(gy, found, kTile);  // @out
    //! drop no_mte3_s: race@write<out MTE3_S
    SetFlag<HardEvent::MTE3_S>(EVENT_ID0);
    //! drop no_mte3_s
    WaitFlag<HardEvent::MTE3_S>(EVENT_ID0);
    SetFlag<HardEvent::S_MTE2>(EVENT_ID0);
    WaitFlag<HardEvent::S_MTE2>(EVENT_ID0);
  }
}
