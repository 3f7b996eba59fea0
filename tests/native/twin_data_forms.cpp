// DataCopy's rarer forms, Fill, and LoadData 3D with its registers.
#include "twin_vec_across.h"

using namespace across;

namespace {

template <typename T>
LocalTensor<T> All(TPosition position, uint32_t bytes) {
  return LocalTensor<T>(position, 0, bytes / sizeof(T));
}

// The 16-row fractals in L0A times what lies in L0B, as float in y.
void Multiply(GM_ADDR y, uint32_t m, uint32_t n, uint32_t k) {
  MmadParams p;
  p.m = static_cast<uint16_t>(m);
  p.n = static_cast<uint16_t>(n);
  p.k = static_cast<uint16_t>(k);
  const auto c = All<float>(TPosition::CO1, 128 * 1024);
  Ready();
  Mmad(c, All<half>(TPosition::A2, 65536), All<half>(TPosition::B2, 65536), p);
  Ready();
  Fixpipe(Gm<float>(y), c, FixpipeParamsV220(p.n, p.m, static_cast<uint16_t>((m + 15) / 16 * 16), n, false));
}

}  // namespace

// p: type, bytes of x, nd, n, d, srcNd, srcN, dstD, dstNd
KERNEL nz2nd(GM_ADDR x, GM_ADDR y, GM_ADDR params) {
  const Params p(params);
  Wide(p[0], [&](auto zero) {
    using T = decltype(zero);
    const LocalTensor<T> src = Load<T>(x, 0, static_cast<uint32_t>(p[1]));
    Ready();
    DataCopy(
        Gm<T>(y), src,
        Nz2NdParamsFull(p.Short(2), p.Short(3), p.Short(4), p.Short(5), p.Short(6), p.Short(7), p.Short(8)));
  });
}

// 16 x 16 floats, added to what y holds: as fractals, then as one slice.
KERNEL forms_add(GM_ADDR x, GM_ADDR y) {
  const LocalTensor<float> src = Load<float>(x, 0, 1024);
  Ready();
  SetAtomicAdd<float>();
  DataCopy(Gm<float>(y), src, Nz2NdParamsFull(1, 16, 16, 1, 16, 16, 1));
  PipeBarrier<PIPE_MTE3>();
  const SliceInfo all[1] = {SliceInfo(0, 255, 0, 32, 256)};
  DataCopy(Gm<float>(y), src, all, all, 1);
  SetAtomicNone();
}

// p: type, bytes on chip, dims, then five numbers a dimension of the chip's side, then of GM's. Goes in, and
// out to z by the same slices.
KERNEL slices(GM_ADDR x, GM_ADDR y, GM_ADDR z, GM_ADDR params) {
  const Params p(params);
  Any(p[0], [&](auto zero) {
    using T = decltype(zero);
    const uint32_t bytes = static_cast<uint32_t>(p[1]), dims = static_cast<uint32_t>(p[2]);
    SliceInfo chip[8], gm[8];
    for (uint32_t d = 0; d < dims; ++d) {
      for (uint32_t side = 0; side < 2; ++side) {
        const uint32_t at = 3 + 5 * (side * dims + d);
        (side == 0 ? chip : gm)[d] = SliceInfo(
            static_cast<uint32_t>(p[at]), static_cast<uint32_t>(p[at + 1]), static_cast<uint32_t>(p[at + 2]),
            static_cast<uint32_t>(p[at + 3]), static_cast<uint32_t>(p[at + 4]));
      }
    }
    const LocalTensor<T> there = Load<T>(y, 0, bytes);
    Ready();
    DataCopy(there, Gm<T>(x), chip, gm, dims);
    Store(y, 0, bytes);
    Ready();
    DataCopy(Gm<T>(z), there, gm, chip, dims);
  });
}

KERNEL enhanced(GM_ADDR x, GM_ADDR y, int32_t blocks) {
  const DataCopyParams p(static_cast<uint16_t>(blocks), 1, 1, 0);
  const auto ub = At<half>(0, 1024), second = At<half>(1024, 1024);
  DataCopy(ub, Gm<half>(x), p, DataCopyEnhancedParams());
  Ready();
  DataCopy(second, ub, DataCopyParams(static_cast<uint16_t>(blocks), 1, 0, 0), DataCopyEnhancedParams());
  Ready();
  DataCopy(Gm<half>(y), second, DataCopyParams(static_cast<uint16_t>(blocks), 1, 0, 1),
           DataCopyEnhancedParams());
}

KERNEL out_of_l0c(GM_ADDR) {
  DataCopy(At<float>(0, 1024), All<float>(TPosition::CO1, 1024), DataCopyParams(1, 32, 0, 0),
           DataCopyEnhancedParams());
}

// Three rows of `n` halves, filled up to a block on both sides.
KERNEL pad_from_register(GM_ADDR x, GM_ADDR y, int32_t n) {
  const auto ub = At<half>(0, 96);
  SetPadValue(half(7.0f));
  DataCopyPad(ub, Gm<half>(x), DataCopyExtParams(3, static_cast<uint32_t>(n) * 2, 0, 0, 0),
              DataCopyPadExtParams<half>(false, 1, static_cast<uint8_t>(15 - n), half(9.0f)));
  Store(y, 0, 96);
}

// p: type, bytes of y, repeat, blocks, gap, value's bits
KERNEL fill_l1(GM_ADDR y, GM_ADDR params) {
  const Params p(params);
  Wide(p[0], [&](auto zero) {
    using T = decltype(zero);
    const uint32_t bytes = static_cast<uint32_t>(p[1]);
    const auto l1 = All<T>(TPosition::A1, bytes);
    DataCopy(l1, Gm<T>(y), bytes / sizeof(T));
    Ready();
    Fill(l1, InitConstValueParams<T>(p.Short(2), p.Short(3), p.Short(4),
                                     FromBits<T>(static_cast<uint64_t>(p[5]))));
    Ready();
    DataCopy(Gm<T>(y), l1, bytes / sizeof(T));
  });
}

// Rows 0..15 and 32..47 of A are 2, rows 16..31 are 3, B is 1: y = A @ B.
KERNEL fill_l0(GM_ADDR y) {
  const auto a = All<half>(TPosition::A2, 65536), b = All<half>(TPosition::B2, 65536);
  InitConstValue(a, InitConstValueParams<half>(2, 1, 1, half(2.0f)));
  InitConstValue(a[256], InitConstValueParams<half>(1, 1, 0, half(3.0f)));
  InitConstValue(b, InitConstValueParams<half>(1, 1, 0, half(1.0f)));
  Multiply(y, 48, 16, 16);
}

static constexpr IsResetLoad3dConfig kFromRegisters = {false, false};

// p: bytes of x, where it goes in L1, form (0 V2, 1 registers, 2 Pro), h, w, c, kExt, mExt, kStart, mStart,
// filterW, filterH, padding on all sides, boundary, repeat stride, time, mode, m and k of the result, start
// in L1
KERNEL load_3d(GM_ADDR x, GM_ADDR eye, GM_ADDR y, GM_ADDR params) {
  const Params p(params);
  const uint32_t bytes = static_cast<uint32_t>(p[0]), m = static_cast<uint32_t>(p[17]);
  const uint16_t k = p.Short(18);
  const auto l1 = All<half>(TPosition::A1, 512 * 1024);
  const auto eyes = l1[128 * 1024];
  DataCopy(l1[static_cast<uint32_t>(p[1]) / 2], Gm<half>(x), bytes / 2);
  DataCopy(eyes, Gm<half>(eye), Nd2NzParams(1, k, k, 0, k, k, 1, 0));
  Ready();
  LoadData(All<half>(TPosition::B2, 65536), eyes,
           LoadData2DParams(0, static_cast<uint8_t>(k / 16 * (k / 16)), 1, 0, 0, false, 0));
  LoadData3DParamsV2<half> v;
  v.l1H = p.Short(3);
  v.l1W = p.Short(4);
  v.channelSize = p.Short(5);
  v.kExtension = p.Short(6);
  v.mExtension = p.Short(7);
  v.kStartPt = p.Short(8);
  v.mStartPt = p.Short(9);
  v.filterW = p.Byte(10);
  v.filterH = p.Byte(11);
  for (uint8_t& side : v.padList) side = p.Byte(12);
  v.padValue = half(-3.0f);
  SetLoadDataBoundary(static_cast<uint32_t>(p[13]));
  SetLoadDataRepeat(LoadDataRepeatParam(p.Short(14), p.Byte(15), p.Byte(16)));
  const auto a = All<half>(TPosition::A2, 65536), from = l1[static_cast<uint32_t>(p[19]) / 2];
  SetFmatrix(v.l1H, v.l1W, v.padList, FmatrixMode::FMATRIX_LEFT);
  SetLoadDataPaddingValue(v.padValue);
  if (p[2] == 0) LoadData(a, from, v);
  if (p[2] == 1) {
    v.l1H = 1;  // not looked at
    v.l1W = 1;
    v.padValue = half(5.0f);
    for (uint8_t& side : v.padList) side = 0;
    LoadData<half, kFromRegisters>(a, from, v);
  }
  if (p[2] == 2) {
    LoadData3DParamsV2Pro pro;
    pro.channelSize = v.channelSize;
    pro.extConfig = static_cast<uint64_t>(v.mStartPt) << 48 | static_cast<uint64_t>(v.kStartPt) << 32 |
                    static_cast<uint64_t>(v.mExtension) << 16 | v.kExtension;
    pro.filterConfig = uint64_t{0x010100000101} | static_cast<uint64_t>(v.filterH) << 24 |
                       static_cast<uint64_t>(v.filterW) << 16;
    LoadData(a, from, pro);
  }
  Multiply(y, m, k, k);
}
