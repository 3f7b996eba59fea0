// Rows of 3 floats, each in a block of 32 bytes of its own: only the lanes that hold something are computed.
#include "kernel_operator.h"

using namespace AscendC;

extern "C" __global__ __aicore__ void masked_rows(GM_ADDR x, GM_ADDR y, uint32_t rows) {
  constexpr uint32_t kColumns = 3;
  GlobalTensor<float> gx, gy;
  gx.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(x));
  gy.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(y));
  const LocalTensor<float> t(TPosition::VECCALC, 0, 8 * rows);
  const DataCopyExtParams dense(static_cast<uint16_t>(rows), kColumns * sizeof(float), 0, 0, 0);
  //! replace row_stride_in_bytes `dense,` `DataCopyExtParams(rows, 12, 0, 32, 0),`: out-of-bounds
  DataCopyPad(t, gx, dense, {false, 0, 0, 0.0f});
  SetFlag<HardEvent::MTE2_V>(EVENT_ID0);
  WaitFlag<HardEvent::MTE2_V>(EVENT_ID0);
  //! replace whole_blocks `kColumns, rows` `8, rows`: short-row
  //! replace as_if_dense `kColumns, rows` `kColumns * rows, 1`: short-row
  //! replace a_row_more `kColumns, rows` `kColumns, rows + 1`: out-of-bounds
  Abs(t, t, kColumns, rows, {1, 1, 1, 1});  // @abs
  SetFlag<HardEvent::V_MTE3>(EVENT_ID0);
  WaitFlag<HardEvent::V_MTE3>(EVENT_ID0);
  //! replace out_as_if_dense `gy, t, dense` `gy, t, DataCopyExtParams(1, 12 * rows, 0, 0, 0)`: short-row
  DataCopyPad(gy, t, dense);  // @out
}
