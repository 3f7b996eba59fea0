// y = -x: a copy is always one tile ahead of the computation, in a queue of two buffers.
#include "kernel_operator.h"

using namespace AscendC;

namespace {

constexpr uint32_t kTile = 64;

class Negate {
 public:
  __aicore__ inline void Init(GM_ADDR x, GM_ADDR y, uint32_t tiles) {
    const uint64_t first = GetBlockIdx() * uint64_t{tiles} * kTile;
    x_.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(x) + first);
    y_.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(y) + first);
    pipe_.InitBuffer(in_, 2, kTile * sizeof(half));   // @init_in
    pipe_.InitBuffer(out_, 1, kTile * sizeof(half));  // @init_out
  }
  __aicore__ inline void Process(uint32_t tiles) {
    CopyIn(0);
    for (uint32_t i = 0; i < tiles; ++i) {
      //! replace too_far_ahead `CopyIn(i + 1);` `CopyIn(i + 1), CopyIn(i + 1);`: queue@alloc
      //! replace one_too_many `i + 1 < tiles` `i < tiles`: queue@init_in, out-of-bounds@copy
      if (i + 1 < tiles) CopyIn(i + 1);
      Compute();
      CopyOut(i);
    }
  }

 private:
  __aicore__ inline void CopyIn(uint32_t i) {
    LocalTensor<half> t = in_.AllocTensor<half>();  // @alloc
    DataCopy(t, x_[i * kTile], kTile);              // @copy
    in_.EnQue(t);
  }
  __aicore__ inline void Compute() {
    LocalTensor<half> t = in_.DeQue<half>();
    LocalTensor<half> r = out_.AllocTensor<half>();
    Muls(r, t, half(-1.0f), kTile);  // @muls
    out_.EnQue<half>(r);
    //! drop never_freed: queue@alloc
    in_.FreeTensor(t);
  }
  __aicore__ inline void CopyOut(uint32_t i) {
    //! replace not_dequeued `out_.DeQue<half>()` `out_.AllocTensor<half>()`: queue
    LocalTensor<half> r = out_.DeQue<half>();
    DataCopy(y_[i * kTile], r, kTile);  // @copy_out
    out_.FreeTensor(r);                 // @free
  }

  TPipe pipe_;
  TQue<TPosition::VECIN, 2> in_;
  TQue<TPosition::VECOUT, 1> out_;
  GlobalTensor<half> x_, y_;
};

}  // namespace

extern "C" __global__ __aicore__ void queue_ahead(GM_ADDR x, GM_ADDR y, uint32_t tiles) {
  Negate op;
  op.Init(x, y, tiles);
  op.Process(tiles);
}
