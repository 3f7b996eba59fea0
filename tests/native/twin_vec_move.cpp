// Brcb, Copy, Transpose, TransDataTo5HD, BilinearInterpolation: source at 0 of UB, destination behind it.
#include "twin_vec_across.h"

using namespace across;

// p: type, bytes of x, bytes of y, repeat, dstBlk, dstRep
KERNEL brcb(GM_ADDR x, GM_ADDR y, GM_ADDR params) {
  const Params p(params);
  Wide(p[0], [&](auto zero) {
    using T = decltype(zero);
    const uint32_t xs = static_cast<uint32_t>(p[1]), ys = static_cast<uint32_t>(p[2]);
    const LocalTensor<T> src = Load<T>(x, 0, xs), dst = Load<T>(y, xs, ys);
    Ready();
    Brcb(dst, src, p.Byte(3), BrcbRepeatParams(p.Short(4), p.Short(5)));
    Store(y, xs, ys);
  });
}

// p: type, bytes of x, bytes of y, how, mask, mask, repeat, dst, src, dstRepeat, srcRepeat
KERNEL copy_lanes(GM_ADDR x, GM_ADDR y, GM_ADDR params) {
  const Params p(params);
  Wide(p[0], [&](auto zero) {
    using T = decltype(zero);
    const uint32_t xs = static_cast<uint32_t>(p[1]), ys = static_cast<uint32_t>(p[2]);
    const LocalTensor<T> src = Load<T>(x, 0, xs), dst = Load<T>(y, xs, ys);
    Ready();
    const CopyRepeatParams c(p.Short(7), p.Short(8), p.Short(9), p.Short(10));
    Masked<T>(p, 3,
              [&](auto mask, auto set) { Copy<T, decltype(set)::value>(dst, src, mask, p.Byte(6), c); });
    Store(y, xs, ys);
  });
}

// p: type, bytes of x, bytes of y, basic form, type of transposition, n, c, h, w, bytes of the temporary
KERNEL transpose(GM_ADDR x, GM_ADDR y, GM_ADDR params) {
  const Params p(params);
  Any(p[0], [&](auto zero) {
    using T = decltype(zero);
    const uint32_t xs = static_cast<uint32_t>(p[1]), ys = static_cast<uint32_t>(p[2]);
    const LocalTensor<T> src = Load<T>(x, 0, xs), dst = Load<T>(y, xs, ys);
    Ready();
    if (p[3] != 0)
      Transpose<T>(dst, src);
    else
      Transpose<T>(dst, src, At<uint8_t>(xs + ys, static_cast<uint32_t>(p[9])),
                   TransposeParamsExt(p.Short(5), p.Short(6), p.Short(7), p.Short(8),
                                      static_cast<TransposeType>(p[4])));
    Store(y, xs, ys);
  });
}

// p: type, bytes of x, bytes of y, form (0 tensors, 1 addresses, 2 tensors of addresses), dstHigh, srcHigh,
// repeat, dstRep, srcRep, 16 places in y, 16 places in x, in bytes
KERNEL trans_data(GM_ADDR x, GM_ADDR y, GM_ADDR params) {
  const Params p(params);
  Any(p[0], [&](auto zero) {
    using T = decltype(zero);
    const uint32_t xs = static_cast<uint32_t>(p[1]), ys = static_cast<uint32_t>(p[2]);
    const LocalTensor<T> src = Load<T>(x, 0, xs), dst = Load<T>(y, xs, ys);
    const LocalTensor<uint64_t> to = At<uint64_t>(xs + ys, 128), from = At<uint64_t>(xs + ys + 128, 128);
    Ready();
    const TransDataTo5HDParams t(p[4] != 0, p[5] != 0, p.Byte(6), p.Short(7), p.Short(8));
    LocalTensor<T> dsts[16], srcs[16];
    uint64_t dst_at[16], src_at[16];
    for (uint32_t i = 0; i < 16; ++i) {
      dsts[i] = dst[static_cast<uint32_t>(p[9 + i]) / sizeof(T)];
      srcs[i] = src[static_cast<uint32_t>(p[25 + i]) / sizeof(T)];
      dst_at[i] = dsts[i].GetPhyAddr();
      src_at[i] = srcs[i].GetPhyAddr();
      to.SetValue(i, dst_at[i]);
      from.SetValue(i, src_at[i]);
    }
    Ready();
    if (p[3] == 0) TransDataTo5HD<T>(dsts, srcs, t);
    if (p[3] == 1) TransDataTo5HD<T>(dst_at, src_at, t);
    if (p[3] == 2) TransDataTo5HD<T>(to, from, t);
    Store(y, xs, ys);
  });
}

// p: bytes of x, bytes of offsets, bytes of weights, bytes of y, how, mask, mask, hRepeat, repeatMode,
// dstBlk, vROffset, vRepeat
KERNEL bilinear(GM_ADDR x, GM_ADDR offsets, GM_ADDR weights, GM_ADDR y, GM_ADDR params) {
  const Params p(params);
  const uint32_t xs = static_cast<uint32_t>(p[0]), os = static_cast<uint32_t>(p[1]);
  const uint32_t ws = static_cast<uint32_t>(p[2]), ys = static_cast<uint32_t>(p[3]);
  const LocalTensor<half> src = Load<half>(x, 0, xs), weight = Load<half>(weights, xs + os, ws);
  const LocalTensor<uint32_t> offset = Load<uint32_t>(offsets, xs, os);
  const LocalTensor<half> dst = Load<half>(y, xs + os + ws, ys);
  const LocalTensor<uint8_t> temporary = At<uint8_t>(xs + os + ws + ys, 65536);
  Ready();
  Masked<half>(p, 4, [&](auto mask, auto) {
    BilinearInterpolation(dst, src, offset, weight, mask, p.Byte(7), p[8] != 0, p.Short(9), p.Short(10),
                          p.Byte(11), temporary);
  });
  Store(y, xs + os + ws, ys);
}
