// Gather, Gatherb and GatherMask: source, offsets or bits, destination, one behind the other in UB.
#include "twin_vec_across.h"

using namespace across;

// p: type, bytes of x, bytes of offsets, bytes of y, op (0 Gather, 1 Gatherb), count form, how, mask, mask,
// repeat, base, dstBlk, dstRep
KERNEL gather(GM_ADDR x, GM_ADDR offsets, GM_ADDR y, GM_ADDR params) {
  const Params p(params);
  Wide(p[0], [&](auto zero) {
    using T = decltype(zero);
    const uint32_t xs = static_cast<uint32_t>(p[1]), os = static_cast<uint32_t>(p[2]);
    const uint32_t ys = static_cast<uint32_t>(p[3]);
    const LocalTensor<T> src = Load<T>(x, 0, xs), dst = Load<T>(y, xs + os, ys);
    const LocalTensor<uint32_t> offset = Load<uint32_t>(offsets, xs, os);
    Ready();
    const uint32_t base = static_cast<uint32_t>(p[10]);
    if (p[4] == 1) {
      Gatherb<T>(dst, src, offset, p.Byte(9), GatherRepeatParams(p.Byte(11), p.Byte(12)));
    } else if (p[5] != 0) {
      Gather<T>(dst, src, offset, base, static_cast<uint32_t>(p[7]));
    } else {
      Masked<T>(p, 6,
                [&](auto mask, auto) { Gather<T>(dst, src, offset, base, mask, p.Byte(9), p.Short(12)); });
    }
    Store(y, xs + os, ys);
  });
}

// p: type, bytes of x, bytes of bits (0: built in), bytes of y, pattern, reduceMode, mask, blk, repeat, rep,
// rep of the bits, whether dst is src. y ends in 32 bytes for the count.
KERNEL gather_mask(GM_ADDR x, GM_ADDR bits, GM_ADDR y, GM_ADDR params) {
  const Params p(params);
  Wide(p[0], [&](auto zero) {
    using T = decltype(zero);
    using U = std::conditional_t<sizeof(T) == 2, uint16_t, uint32_t>;
    const uint32_t xs = static_cast<uint32_t>(p[1]), bs = static_cast<uint32_t>(p[2]);
    const uint32_t ys = static_cast<uint32_t>(p[3]) - 32;
    const LocalTensor<T> src = Load<T>(x, 0, xs), dst = p[11] != 0 ? src : Load<T>(y, xs + bs, ys);
    const LocalTensor<U> mask = Load<U>(bits, xs, bs);
    Ready();
    const GatherMaskParams g(p.Byte(7), p.Short(8), p.Short(9), p.Byte(10));
    uint64_t kept = 0;
    SetMaskCount();  // which this instruction ends
    if (bs != 0)
      GatherMask(dst, src, mask, p[5] != 0, static_cast<uint32_t>(p[6]), g, kept);
    else
      GatherMask(dst, src, p.Byte(4), p[5] != 0, static_cast<uint32_t>(p[6]), g, kept);
    Store(y, p[11] != 0 ? 0 : xs + bs, ys);
    Gm<uint64_t>(y + ys).SetValue(0, kept);
    Gm<uint64_t>(y + ys).SetValue(1, twi_state()->counter);
  });
}

// A buffer of two halves of 256 bytes: gathers from the first while a copy fills the one asked for.
KERNEL gather_beside(GM_ADDR x, GM_ADDR offsets, GM_ADDR y, int32_t half) {
  const LocalTensor<float> both = At<float>(0, 512), dst = At<float>(1024, 256);
  Load<float>(x, 0, 256);
  const LocalTensor<uint32_t> offset = Load<uint32_t>(offsets, 512, 256);
  Ready();
  Gather<float>(dst, both, offset, 0, 64);
  DataCopy(both[static_cast<uint32_t>(half) * 64], Gm<float>(x), 64);
  Store(y, 1024, 256);
}

// Neighbours change places, source and destination one.
KERNEL gather_in_place(GM_ADDR x, GM_ADDR offsets) {
  const LocalTensor<float> both = Load<float>(x, 0, 256);
  const LocalTensor<uint32_t> offset = Load<uint32_t>(offsets, 256, 256);
  Ready();
  Gather<float>(both, both, offset, 0, 64);
  Store(x, 0, 256);
}
