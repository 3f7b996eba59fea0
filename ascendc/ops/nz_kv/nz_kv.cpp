// Tokens [T, heads, D] into and out of pages in Ascend's fractals, one source for CANN and for the twin.
//
// A page holds 16 tokens as [heads, ceil(D/C0), 16, C0], C0 elements filling 32 bytes. Runs that fill only a
// part of a page move their own tokens' blocks alone. Slots are read by the scalar unit, which finds the
// runs.
#include "../_kv/move.h"
#include "kernel_operator.h"

namespace {

template <bool kWrite>
__aicore__ inline void Move(GM_ADDR rows, GM_ADDR slots, GM_ADDR pages, GM_ADDR tiling) {
  TwMoveTiling t;
  tw_kv::ReadTiling(tiling, t);
  tw_kv::Mover mover;
  mover.Init(rows, slots, pages, t);
  if (kWrite)
    mover.Write();
  else
    mover.Read();
}

}  // namespace

extern "C" __global__ __aicore__ void nz_kv_write(GM_ADDR x, GM_ADDR slots, GM_ADDR pages, GM_ADDR tiling) {
  Move<true>(x, slots, pages, tiling);
}

extern "C" __global__ __aicore__ void nz_kv_read(GM_ADDR y, GM_ADDR slots, GM_ADDR pages, GM_ADDR tiling) {
  Move<false>(y, slots, pages, tiling);
}
