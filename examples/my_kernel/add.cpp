// z = x + y in fp16, on as many vector cores as the launch has blocks. The twin runs it as it is; CANN's own
// compiler takes the same source.
#include "kernel_operator.h"

using namespace AscendC;

constexpr uint32_t kTile = 2048;  // halfs: 4 KiB, and two of each of x, y and z fit into UB with ease

extern "C" __global__ __aicore__ void add(GM_ADDR x, GM_ADDR y, GM_ADDR z, uint32_t n) {
  GlobalTensor<half> xGm, yGm, zGm;
  xGm.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(x), n);
  yGm.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(y), n);
  zGm.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(z), n);

  TPipe pipe;
  TQue<TPosition::VECIN, 2> xIn, yIn;  // two buffers each: one is filled while the other is added
  TQue<TPosition::VECOUT, 2> zOut;
  pipe.InitBuffer(xIn, 2, kTile * sizeof(half));
  pipe.InitBuffer(yIn, 2, kTile * sizeof(half));
  pipe.InitBuffer(zOut, 2, kTile * sizeof(half));

  for (uint32_t at = GetBlockIdx() * kTile; at < n; at += GetBlockNum() * kTile) {
    LocalTensor<half> xs = xIn.AllocTensor<half>();
    DataCopy(xs, xGm[at], kTile);
    xIn.EnQue(xs);
    xs = xIn.DeQue<half>();

    LocalTensor<half> ys = yIn.AllocTensor<half>();
    DataCopy(ys, yGm[at], kTile);
    yIn.EnQue(ys);           // wait for y: the copy's pipe sets a flag when it has arrived,
    ys = yIn.DeQue<half>();  // wait for y: for which the vector pipe waits

    LocalTensor<half> zs = zOut.AllocTensor<half>();
    Add(zs, xs, ys, kTile);
    xIn.FreeTensor(xs);
    yIn.FreeTensor(ys);
    zOut.EnQue(zs);

    zs = zOut.DeQue<half>();
    DataCopy(zGm[at], zs, kTile);
    zOut.FreeTensor(zs);
  }
}
