// Sort32 and MrgSort.
#include "twin_vec_across.h"

using namespace across;

// x: scores, then uint32 indices; p: type, bytes of scores, bytes of indices, bytes of y, repeat
KERNEL sort32(GM_ADDR x, GM_ADDR indices, GM_ADDR y, GM_ADDR params) {
  const Params p(params);
  Floats(p[0], [&](auto zero) {
    using T = decltype(zero);
    const uint32_t xs = static_cast<uint32_t>(p[1]), is = static_cast<uint32_t>(p[2]);
    const uint32_t ys = static_cast<uint32_t>(p[3]);
    const LocalTensor<T> scores = Load<T>(x, 0, xs), dst = Load<T>(y, xs + is, ys);
    const LocalTensor<uint32_t> index = Load<uint32_t>(indices, xs, is);
    Ready();
    Sort32<T>(dst, scores, index, p.Int(4));
    Store(y, xs + is, ys);
  });
}

// p: type, bytes of x, bytes of y, four starts in bytes, four lengths, suspension, validBit, repeat. y ends
// in 32 bytes for the counts.
KERNEL mrgsort(GM_ADDR x, GM_ADDR y, GM_ADDR params) {
  const Params p(params);
  Floats(p[0], [&](auto zero) {
    using T = decltype(zero);
    const uint32_t xs = static_cast<uint32_t>(p[1]), ys = static_cast<uint32_t>(p[2]) - 32;
    const LocalTensor<T> src = Load<T>(x, 0, xs), dst = Load<T>(y, xs, ys);
    Ready();
    MrgSort4Info info;
    LocalTensor<T> list[4];
    for (uint32_t i = 0; i < 4; ++i) {
      list[i] = src[static_cast<uint32_t>(p[3 + i]) / sizeof(T)];
      info.elementLengths[i] = p.Short(7 + i);
    }
    info.ifExhaustedSuspension = p[11] != 0;
    info.validBit = p.Short(12);
    info.repeatTimes = p.Byte(13);
    MrgSort<T>(dst, MrgSortSrcList<T>(list[0], list[1], list[2], list[3]), info);
    Store(y, xs, ys);
    uint16_t taken[4];
    GetMrgSortResult(taken[0], taken[1], taken[2], taken[3]);
    GlobalTensor<uint16_t> counts = Gm<uint16_t>(y + ys);
    for (uint32_t i = 0; i < 4; ++i) counts.SetValue(i, taken[i]);
  });
}

// p: 0 Sort32 or 1 MrgSort, times
KERNEL sort_speed(GM_ADDR x, GM_ADDR y, GM_ADDR params) {
  const Params p(params);
  const LocalTensor<float> src = Load<float>(x, 0, 65536), dst = At<float>(65536, 65536);
  Ready();
  const uint16_t lengths[4] = {2048, 2048, 2048, 2048};
  for (int64_t i = 0; i < p[1]; ++i) {
    if (p[0] == 0)
      Sort32<float>(dst, src, src.ReinterpretCast<uint32_t>(), 255);
    else
      MrgSort<float>(dst, MrgSortSrcList<float>(src, src[4096], src[8192], src[12288]),
                     MrgSort4Info(lengths, false, 15, 1));
    PipeBarrier<PIPE_V>();
  }
  Store(y, 65536, 32);
}
