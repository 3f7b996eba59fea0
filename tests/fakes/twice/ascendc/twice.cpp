// y[n] = 2 * x[n], `tile` elements at a time: GM -> UB, the scalar unit, UB -> GM.
#include "twice.h"

#include "kernel_operator.h"

extern "C" __global__ __aicore__ void twice_fp32(GM_ADDR x, GM_ADDR y, GM_ADDR tiling) {
  using namespace AscendC;
  GlobalTensor<int32_t> words;
  words.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(tiling));
  const TwiceTiling t{words.GetValue(0), words.GetValue(1)};
  GlobalTensor<float> from, to;
  from.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(x));
  to.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(y));
  TPipe pipe;
  TBuf<TPosition::VECCALC> buffer;
  pipe.InitBuffer(buffer, t.tile * sizeof(float));
  LocalTensor<float> local = buffer.Get<float>();
  const int32_t step = static_cast<int32_t>(GetBlockNum()) * t.tile;
  for (int32_t i = static_cast<int32_t>(GetBlockIdx()) * t.tile; i < t.n; i += step) {
    const uint32_t count = static_cast<uint32_t>(t.n - i < t.tile ? t.n - i : t.tile);
    const DataCopyExtParams row(1, count * sizeof(float), 0, 0, 0);
    DataCopyPad(local, from[i], row, DataCopyPadExtParams<float>());
    SetFlag<HardEvent::MTE2_S>(EVENT_ID0);
    WaitFlag<HardEvent::MTE2_S>(EVENT_ID0);
    for (uint32_t j = 0; j < count; ++j) local.SetValue(j, 2.0f * local.GetValue(j));
    SetFlag<HardEvent::S_MTE3>(EVENT_ID0);
    WaitFlag<HardEvent::S_MTE3>(EVENT_ID0);
    DataCopyPad(to[i], local, row);
    SetFlag<HardEvent::MTE3_MTE2>(EVENT_ID0);
    WaitFlag<HardEvent::MTE3_MTE2>(EVENT_ID0);
  }
}
