// z = x + y through queues of two buffers each.
#include "kernel_operator.h"

using namespace AscendC;

namespace {

constexpr uint32_t kTile = 128;

}  // namespace

extern "C" __global__ __aicore__ void vector_add_queue(GM_ADDR x, GM_ADDR y, GM_ADDR z, uint32_t tiles) {
  const uint64_t first = GetBlockIdx() * uint64_t{tiles} * kTile;
  GlobalTensor<float> gx, gy, gz;
  gx.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(x) + first);
  gy.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(y) + first);
  gz.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(z) + first);
  TPipe pipe;
  TQue<TPosition::VECIN, 2> in_x, in_y;
  TQue<TPosition::VECOUT, 2> out;
  //! replace capacity `kTile` `90 * kTile`
  pipe.InitBuffer(in_x, 2, kTile * sizeof(float));  // @init_x
  //! replace capacity `kTile` `90 * kTile`
  //! replace half_a_buffer `kTile` `kTile / 2`: out-of-bounds@copy_y, out-of-bounds@add
  pipe.InitBuffer(in_y, 2, kTile * sizeof(float));  // @init_y
  //! replace capacity `kTile` `12 * kTile`: capacity
  pipe.InitBuffer(out, 2, kTile * sizeof(float));  // @init_out
  for (uint32_t i = 0; i < tiles; ++i) {
    LocalTensor<float> x_in = in_x.AllocTensor<float>();  // @alloc_x
    //! drop never_copied: uninitialized-read@add
    DataCopy(x_in, gx[i * kTile], kTile);  // @copy_x
    //! drop never_enqueued: queue@deque_x
    in_x.EnQue(x_in);
    //! replace alloc_from_the_other `in_y` `in_x`: queue@alloc_y, queue@enque_y
    LocalTensor<float> y_in = in_y.AllocTensor<float>();  // @alloc_y
    DataCopy(y_in, gy[i * kTile], kTile);                 // @copy_y
    in_y.EnQue(y_in);                                     // @enque_y
    LocalTensor<float> a = in_x.DeQue<float>();           // @deque_x
    LocalTensor<float> b = in_y.DeQue<float>();
    LocalTensor<float> sum = out.AllocTensor<float>();  // @alloc_out
    //! swap freed_before_use: use-after-free@add
    Add(sum, a, b, kTile);  // @add
    //! drop never_freed: queue@alloc_x
    //! replace freed_twice `in_x.FreeTensor(a);` `in_x.FreeTensor(a), in_x.FreeTensor(a);`: queue
    in_x.FreeTensor(a);
    //! replace freed_to_another `in_y` `in_x`: queue, queue@alloc_y
    in_y.FreeTensor(b);
    out.EnQue(sum);  // @enque_out
    LocalTensor<float> ready = out.DeQue<float>();
    DataCopy(gz[i * kTile], ready, kTile);
    //! replace sum_after_free `;` `, sum.SetValue(0, 1.0f);`: use-after-free
    out.FreeTensor(ready);
  }
}
