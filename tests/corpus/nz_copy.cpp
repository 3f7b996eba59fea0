// Row-major [16 x rows, 32] halves to fractals in GM, by way of one buffer in L1.
#include "kernel_operator.h"

using namespace AscendC;

extern "C" __global__ __aicore__ void nz_copy(GM_ADDR x, GM_ADDR y, uint32_t tiles) {
  constexpr uint32_t kRows = 16, kColumns = 32, kTile = kRows * kColumns;
  GlobalTensor<half> gx, gy;
  gx.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(x));
  gy.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(y));
  const LocalTensor<half> l1(TPosition::A1, 0, kTile);
  for (uint32_t tile = GetBlockIdx(); tile < tiles; tile += GetBlockNum()) {
    //! replace matrices_collide `1, kRows` `2, kRows / 2`: uninitialized-read@out
    //! replace wide_rows_short_matrix `0, kColumns, kRows` `0, 65535, kRows`: out-of-bounds
    DataCopy(l1, gx[tile * kTile], Nd2NzParams(1, kRows, kColumns, 0, kColumns, kRows, 1, 0));  // @in
    //! drop no_mte2_mte3: race@out<in MTE2_MTE3
    SetFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
    //! drop no_mte2_mte3
    WaitFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
    //! replace nothing_like_l0a `l1, kTile` `LocalTensor<half>(TPosition::A2, 0, kTile), kTile`:
    //!   illegal-memory
    DataCopy(gy[tile * kTile], l1, kTile);  // @out
    //! drop no_mte3_mte2: race@in<out MTE3_MTE2
    SetFlag<HardEvent::MTE3_MTE2>(EVENT_ID0);
    //! drop no_mte3_mte2
    WaitFlag<HardEvent::MTE3_MTE2>(EVENT_ID0);
  }
}
