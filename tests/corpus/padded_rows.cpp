// y = |x| of the first `columns` floats of each row of a matrix; rows are padded to 32 bytes on chip.
#include "kernel_operator.h"

using namespace AscendC;

extern "C" __global__ __aicore__ void padded_rows(GM_ADDR x, GM_ADDR y, uint32_t rows, uint32_t columns,
                                                  uint32_t pitch) {
  GlobalTensor<float> gx, gy;
  gx.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(x));
  gy.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(y));
  const uint32_t padded = (columns + 7) / 8 * 8;
  const LocalTensor<float> t(TPosition::VECCALC, 0, rows * padded);
  const uint16_t count = static_cast<uint16_t>(rows);
  //! replace gap_of_elements `4 * (pitch - columns)` `4 * pitch`: out-of-bounds@in
  const DataCopyExtParams in(count, 4 * columns, 4 * (pitch - columns), 0, 0);
  const DataCopyExtParams out(count, 4 * columns, 0, 0, 0);
  const uint8_t right = static_cast<uint8_t>(padded - columns);
  //! replace not_padded `{true, 0` `{false, 0`: short-row@abs
  //! replace rows_beyond `gx,` `gx[pitch],`: out-of-bounds
  DataCopyPad(t, gx, in, {true, 0, right, 0.0f});  // @in
  SetFlag<HardEvent::MTE2_V>(EVENT_ID0);
  WaitFlag<HardEvent::MTE2_V>(EVENT_ID0);
  //! replace a_row_more `rows * padded` `(rows + 1) * padded`: out-of-bounds
  Abs(t, t, rows * padded);               // @abs
  SetFlag<HardEvent::V_MTE3>(EVENT_ID0);  // @set_out
  //! drop no_wait_v_mte3: race@out<abs V_MTE3, unpaired-flag@set_out
  WaitFlag<HardEvent::V_MTE3>(EVENT_ID0);
  //! replace too_many_rows `out)` `DataCopyExtParams(4096, 4 * columns, 0, 0, 0))`: illegal-parameter
  DataCopyPad(gy, t, out);  // @out
}
