// Kernels of a few instructions, whose modelled times can be told by hand.
#include "kernel_operator.h"

using namespace AscendC;

#define KERNEL extern "C" __global__ __aicore__ void

namespace {

GlobalTensor<half> View(GM_ADDR address) {
  GlobalTensor<half> t;
  t.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(address));
  return t;
}
LocalTensor<half> Ub(uint32_t address, uint32_t count) {
  return LocalTensor<half>(TPosition::VECCALC, address, count);
}

}  // namespace

// The vector pipe is told to wait before the copy that it waits for is issued.
KERNEL waits_first(GM_ADDR x, GM_ADDR, uint32_t count) {
  WaitFlag<HardEvent::MTE2_V>(0);
  Muls(Ub(0, count), Ub(0, count), half(2.0f), static_cast<int32_t>(count));
  DataCopy(Ub(0, count), View(x), count);
  SetFlag<HardEvent::MTE2_V>(0);
  PipeBarrier<PIPE_ALL>();
}

// Copies in, vector work, copies out: one after the other, `times` times.
KERNEL in_a_row(GM_ADDR x, GM_ADDR y, uint32_t count, uint32_t times) {
  for (uint32_t i = 0; i < times; ++i) {
    DataCopy(Ub(0, count), View(x), count);
    SetFlag<HardEvent::MTE2_V>(0);
    WaitFlag<HardEvent::MTE2_V>(0);
    Muls(Ub(0, count), Ub(0, count), half(2.0f), static_cast<int32_t>(count));
    SetFlag<HardEvent::V_MTE3>(0);
    WaitFlag<HardEvent::V_MTE3>(0);
    DataCopy(View(y), Ub(0, count), count);
    SetFlag<HardEvent::MTE3_MTE2>(0);
    WaitFlag<HardEvent::MTE3_MTE2>(0);
  }
  PipeBarrier<PIPE_ALL>();
}

// `times` vector instructions of `repeats` repeats, more than a queue holds.
KERNEL many(uint32_t repeats, uint32_t times) {
  for (uint32_t i = 0; i < times; ++i)
    Muls(Ub(0x10000, 128), Ub(0, 128), half(2.0f), uint64_t{128}, static_cast<uint8_t>(repeats),
         UnaryRepeatParams(1, 1, 0, 0));
}

// Never set.
KERNEL waits_forever() { WaitFlag<HardEvent::MTE2_V>(0); }
