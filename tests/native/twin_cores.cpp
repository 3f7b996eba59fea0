// What a core of the split architecture has, and calls that move nothing.
#include "kernel_operator.h"

using namespace AscendC;

namespace {

// The first call of a kernel decides what its core is.
void BecomeCube(GM_ADDR x) {
  GlobalTensor<half> from;
  from.SetGlobalBuffer(reinterpret_cast<half*>(x));
  DataCopy(LocalTensor<half>(TPosition::A1, 0, 16), from, 16u);
}
void BecomeVector(GM_ADDR x) {
  GlobalTensor<half> from;
  from.SetGlobalBuffer(reinterpret_cast<half*>(x));
  DataCopy(LocalTensor<half>(TPosition::VECIN, 0, 16), from, 16u);
}

}  // namespace

#define KERNEL extern "C" __global__ __aicore__ void

// One pair of flags of any HardEvent; on a cube core (1), a vector core (2), or one that is neither yet.
KERNEL one_event(GM_ADDR x, uint32_t core, uint32_t event) {
  using tilewright::twin::Op;
  if (core == 1) BecomeCube(x);
  if (core == 2) BecomeVector(x);
  constexpr Op kPair[] = {Op::SetFlag, Op::WaitFlag};
  for (const Op op : kPair)
    detail::EmitFlag(op, static_cast<HardEvent>(event), 0, false, tilewright::twin::Place::Here());
}

// Every instruction once with a size or repeat of zero.
KERNEL nothing_moves(GM_ADDR x, GM_ADDR y) {
  GlobalTensor<half> from, to;
  GlobalTensor<float> out;
  from.SetGlobalBuffer(reinterpret_cast<half*>(x));
  to.SetGlobalBuffer(reinterpret_cast<half*>(y));
  out.SetGlobalBuffer(reinterpret_cast<float*>(y));
  const LocalTensor<half> ub(TPosition::VECIN, 0, 256), l1(TPosition::A1, 0, 256), a2(TPosition::A2, 0, 256),
      b2(TPosition::B2, 0, 256);
  const LocalTensor<float> co1(TPosition::CO1, 0, 256);
  DataCopy(ub, from, 0u);
  DataCopy(ub, from, DataCopyParams(0, 1, 0, 0));
  DataCopyPad(ub, from, DataCopyExtParams(1, 0, 0, 0, 0), DataCopyPadExtParams<half>());
  DataCopy(l1, from, Nd2NzParams(1, 0, 16, 0, 16, 16, 1, 0));
  LoadData(a2, l1, LoadData2DParams());
  LoadDataWithTranspose(b2, l1, LoadData2dTransposeParams());
  LoadData(a2, l1, LoadData3DParamsV2<half>());
  Mmad(co1, a2, b2, MmadParams());
  Fixpipe(out, co1, FixpipeParamsV220(0, 16, 16, 16, false));
  DataCopy(to, ub, 0u);
}

KERNEL copy_in(GM_ADDR x) { BecomeVector(x); }
