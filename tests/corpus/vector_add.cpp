// z = x + y: two buffers for each operand, every flag written by hand.
#include "kernel_operator.h"

using namespace AscendC;

namespace {

constexpr uint32_t kTile = 256, kBytes = kTile * sizeof(half);

}  // namespace

extern "C" __global__ __aicore__ void vector_add(GM_ADDR x, GM_ADDR y, GM_ADDR z, uint32_t tiles) {
  const uint64_t first = GetBlockIdx() * uint64_t{tiles} * kTile;
  GlobalTensor<half> gx, gy, gz;
  gx.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(x) + first);
  gy.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(y) + first);
  gz.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(z) + first);
  const LocalTensor<half> ux(TPosition::VECIN, 0, 2 * kTile);
  //! replace overlapping_buffers `2 * kBytes` `kBytes`: race@copy_x<add V_MTE2, race@copy_y<add V_MTE2
  const LocalTensor<half> uy(TPosition::VECIN, 2 * kBytes, 2 * kTile);
  //! replace small_buffer `2 * kTile` `kTile`: out-of-bounds@add, out-of-bounds@copy_out
  const LocalTensor<half> uz(TPosition::VECOUT, 4 * kBytes, 2 * kTile);
  for (int32_t slot = 0; slot < 2; ++slot) {
    //! drop never_primed_in: deadlock@wait_free_in
    //! drop no_v_mte2
    SetFlag<HardEvent::V_MTE2>(slot);
    //! drop never_primed_out: deadlock@wait_free_out
    SetFlag<HardEvent::MTE3_V>(slot);
  }
  for (uint32_t i = 0; i < tiles; ++i) {
    const int32_t slot = i % 2;
    const uint32_t at = slot * kTile, from = i * kTile;
    //! drop no_v_mte2: race@copy_x<add V_MTE2
    //! drop no_wait_v_mte2: race@copy_x<add V_MTE2, repeated-flag@free_in
    //! replace twice_the_same_id `slot` `0`: deadlock, repeated-flag@free_in
    WaitFlag<HardEvent::V_MTE2>(slot);  // @wait_free_in
    //! replace misaligned_slot `ux[at]` `ux[at + 8]`: misaligned, out-of-bounds
    //! replace wrong_slot `ux[at]` `ux[0]`: race<add V_MTE2, race<copy_x PIPE_MTE2, uninitialized-read@add
    //! replace past_the_end `kTile` `kTile + 16`: out-of-bounds, race@copy_x<add V_MTE2
    //! replace not_whole_blocks `kTile` `kTile - 8`: illegal-parameter
    DataCopy(ux[at], gx[from], kTile);  // @copy_x
    //! swap set_before_copy: race@add<copy_y MTE2_V
    //! replace gm_overrun `gy[from]` `gy[from + 4 * kTile]`: out-of-bounds
    DataCopy(uy[at], gy[from], kTile);  // @copy_y
    //! drop no_mte2_v: race@add<copy_x MTE2_V, race@add<copy_y MTE2_V
    //! drop no_set_mte2_v: unpaired-flag@wait_full
    //! replace reserved_id `slot` `slot + 6`: reserved-flag
    SetFlag<HardEvent::MTE2_V>(slot);  // @set_full
    //! drop no_mte2_v
    //! replace reserved_id `slot` `slot + 6`: reserved-flag
    //! drop no_wait_mte2_v: race@add<copy_x MTE2_V, race@add<copy_y MTE2_V, repeated-flag@set_full
    //! replace id_out_of_range `slot` `slot + 8`: flag-range, repeated-flag@set_full,
    //!   race@add<copy_x MTE2_V, race@add<copy_y MTE2_V
    WaitFlag<HardEvent::MTE2_V>(slot);  // @wait_full
    //! drop no_wait_mte3_v: race@add<copy_out MTE3_V, repeated-flag@free_out
    WaitFlag<HardEvent::MTE3_V>(slot);   // @wait_free_out
    Add(uz[at], ux[at], uy[at], kTile);  // @add
    //! drop no_v_mte2
    //! replace event_of_a_cube_core `V_MTE2` `MTE1_MTE2`: illegal-event, unpaired-flag@wait_free_in,
    //!   unpaired-flag@drain
    SetFlag<HardEvent::V_MTE2>(slot);  // @free_in
    //! drop no_v_mte3: race@copy_out<add V_MTE3
    SetFlag<HardEvent::V_MTE3>(slot);
    //! drop no_v_mte3
    WaitFlag<HardEvent::V_MTE3>(slot);
    //! replace shifted_output `from` `from - i * 16`: race<copy_out PIPE_MTE3
    DataCopy(gz[from], uz[at], kTile);  // @copy_out
    SetFlag<HardEvent::MTE3_V>(slot);   // @free_out
  }
  for (int32_t slot = 0; slot < 2; ++slot) {
    //! drop no_v_mte2
    //! drop left_raised: unpaired-flag@free_in
    WaitFlag<HardEvent::V_MTE2>(slot);  // @drain
    WaitFlag<HardEvent::MTE3_V>(slot);
  }
}
