// y = x - mean(x); the scalar unit divides and spreads the mean, and keeps each tile's first value.
#include "kernel_operator.h"

using namespace AscendC;

extern "C" __global__ __aicore__ void mean_scalar(GM_ADDR x, GM_ADDR y, GM_ADDR means, GM_ADDR firsts) {
  constexpr uint32_t kTile = 256;
  GlobalTensor<float> gx, gy, gm, gf;
  gx.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(x));
  gy.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(y));
  gm.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(means));
  gf.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(firsts));
  const LocalTensor<float> t(TPosition::VECIN, 0, kTile), sum(TPosition::VECCALC, 1024, 8),
      work(TPosition::VECCALC, 1056, kTile), mean(TPosition::VECOUT, 2080, 8);
  const uint32_t from = GetBlockIdx() * kTile;
  DataCopy(t, gx[from], kTile);           // @in
  SetFlag<HardEvent::MTE2_S>(EVENT_ID0);  // @set_s
  //! drop no_wait_mte2_s: race@first<in MTE2_S, unpaired-flag@set_s
  WaitFlag<HardEvent::MTE2_S>(EVENT_ID0);
  //! replace first_of_the_next `GetBlockIdx() * 8` `GetBlockIdx() * 8 + 8`: out-of-bounds
  //! replace scalar_past_the_end `GetValue(0)` `GetValue(kTile)`: out-of-bounds
  //! replace everyones_first `GetBlockIdx() * 8` `0`: race<first CORES
  gf.SetValue(GetBlockIdx() * 8, t.GetValue(0));  // @first
  SetFlag<HardEvent::MTE2_V>(EVENT_ID0);
  WaitFlag<HardEvent::MTE2_V>(EVENT_ID0);
  ReduceSum(sum, t, work, kTile);  // @reduce
  //! drop no_v_s: race@read_sum<reduce V_S
  SetFlag<HardEvent::V_S>(EVENT_ID0);
  //! drop no_v_s
  WaitFlag<HardEvent::V_S>(EVENT_ID0);
  //! replace never_reduced `sum.` `work.`: uninitialized-read
  const float value = sum.GetValue(0) / kTile;  // @read_sum
  //! replace seven_of_eight `i < 8` `i < 7`: uninitialized-read@subtract
  for (uint32_t i = 0; i < 8; ++i) mean.SetValue(i, value);  // @write_mean
  //! drop no_s_mte3: race@out_mean<write_mean S_MTE3
  SetFlag<HardEvent::S_MTE3>(EVENT_ID0);
  //! drop no_s_mte3
  WaitFlag<HardEvent::S_MTE3>(EVENT_ID0);
  DataCopy(gm[GetBlockIdx() * 8], mean, 8);  // @out_mean
  //! drop no_s_v: race@subtract<write_mean S_V
  SetFlag<HardEvent::S_V>(EVENT_ID0);
  //! drop no_s_v
  WaitFlag<HardEvent::S_V>(EVENT_ID0);
  //! replace no_repeats_left `64, 4` `64, 5`: out-of-bounds
  Sub(t, t, mean, 64, 4, {1, 1, 0, 8, 8, 0});  // @subtract
  SetFlag<HardEvent::V_MTE3>(EVENT_ID0);
  WaitFlag<HardEvent::V_MTE3>(EVENT_ID0);
  DataCopy(gy[from], t, kTile);
}
