// y = 2 x + 1 in two phases, each with the whole of UB for itself: the first by a queue, the second by a
// buffer.
#include "kernel_operator.h"

using namespace AscendC;

namespace {

constexpr uint32_t kTile = 128, kMost = 96 * 1024;

}  // namespace

extern "C" __global__ __aicore__ void two_phases(GM_ADDR x, GM_ADDR y, uint32_t tiles) {
  GlobalTensor<float> gx, gy;
  gx.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(x) + GetBlockIdx() * tiles * kTile);
  gy.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(y) + GetBlockIdx() * tiles * kTile);
  TPipe pipe;
  {
    TQueBind<TPosition::VECIN, TPosition::VECOUT, 1> queue;
    pipe.InitBuffer(queue, 1, kMost);
    for (uint32_t i = 0; i < tiles; ++i) {
      LocalTensor<float> in = queue.AllocTensor<float>();
      DataCopy(in, gx[i * kTile], kTile);
      queue.EnQue(in);
      LocalTensor<float> out = queue.DeQue<float>();
      DataCopy(gy[i * kTile], out, kTile);  // @first
      queue.FreeTensor(out);
    }
  }
  pipe.Destroy();
  //! drop not_begun_anew: capacity@hold
  pipe.Init();
  TBuf<TPosition::VECCALC> buffer;
  pipe.InitBuffer(buffer, kMost + 32);  // @hold
  LocalTensor<float> t = buffer.Get<float>();
  for (uint32_t i = 0; i < tiles; ++i) {
    DataCopy(t, gy[i * kTile], kTile);  // @second
    SetFlag<HardEvent::MTE2_V>(EVENT_ID0);
    WaitFlag<HardEvent::MTE2_V>(EVENT_ID0);
    Muls(t, t, 2.0f, kTile);
    PipeBarrier<PIPE_V>();
    Adds(t, t, 1.0f, kTile);
    PipeBarrier<PIPE_ALL>();
    DataCopy(gy[i * kTile], t, kTile);  // @third
    //! drop no_barrier: race@second<third MTE3_MTE2
    PipeBarrier<PIPE_ALL>();
  }
}
