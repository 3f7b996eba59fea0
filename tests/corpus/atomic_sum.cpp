// All blocks add their tile to one: y += x of each block, in GM.
#include "kernel_operator.h"

using namespace AscendC;

extern "C" __global__ __aicore__ void atomic_sum(GM_ADDR x, GM_ADDR y, uint32_t tiles) {
  constexpr uint32_t kTile = 64;
  GlobalTensor<float> gx, gy;
  gx.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(x));
  gy.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(y));
  TPipe pipe;
  TQueBind<TPosition::VECIN, TPosition::VECOUT, 2> queue;
  pipe.InitBuffer(queue, 2, kTile * sizeof(float));  // @init
  for (uint32_t i = GetBlockIdx(); i < tiles; i += GetBlockNum()) {
    LocalTensor<float> in = queue.AllocTensor<float>();
    //! replace into_the_next_buffer `in, gx` `in[8], gx`: out-of-bounds
    DataCopy(in, gx[i * kTile], kTile);
    //! replace enqueued_twice `;` `, queue.EnQue(in);`: queue
    queue.EnQue(in);
    LocalTensor<float> t = queue.DeQue<float>();
    //! drop not_atomic: race@add<add CORES
    SetAtomicAdd<float>();
    DataCopy(gy, t, kTile);  // @add
    SetAtomicNone();
    queue.FreeTensor(t);
  }
}
