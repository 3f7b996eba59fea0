// One kernel an instruction: parameters come as scalar arguments, results go to y as they lie on chip or
// through L0C.
#include "kernel_operator.h"

using namespace AscendC;

namespace {

template <typename T>
GlobalTensor<T> Gm(GM_ADDR address) {
  GlobalTensor<T> t;
  t.SetGlobalBuffer(reinterpret_cast<T*>(address));
  return t;
}

// Static tensors: the whole of a memory, no TPipe.
template <typename T>
LocalTensor<T> All(TPosition position, uint32_t bytes) {
  return LocalTensor<T>(position, 0, bytes / sizeof(T));
}

// C = A @ B for what lies in L0, one Mmad, unpacked to y as float or int32.
template <typename T, typename Acc>
void MultiplyOut(GM_ADDR y, uint32_t m, uint32_t n, uint32_t k, bool kAlign16) {
  LocalTensor<Acc> c = All<Acc>(TPosition::CO1, 128 * 1024);
  MmadParams p;
  p.m = static_cast<uint16_t>(m);
  p.n = static_cast<uint16_t>(n);
  p.k = static_cast<uint16_t>(k);
  p.kDirectionAlign = kAlign16;
  Mmad(c, All<T>(TPosition::A2, 64 * 1024), All<T>(TPosition::B2, 64 * 1024), p);
  FixpipeParamsV220 f(static_cast<uint16_t>(n), static_cast<uint16_t>(m),
                      static_cast<uint16_t>((m + 15) / 16 * 16), n, false);
  Fixpipe(Gm<Acc>(y), c, f);
}

// An identity of order n, float or half, from GM at `eye` [n, n] into L0B.
template <typename T>
void LoadIdentity(GM_ADDR eye, uint32_t n, uint32_t l1Offset) {
  LocalTensor<T> l1 = All<T>(TPosition::B1, 512 * 1024)[l1Offset / sizeof(T)];
  const uint16_t n16 = static_cast<uint16_t>((n + 15) / 16 * 16);
  DataCopy(l1, Gm<T>(eye),
           Nd2NzParams(1, static_cast<uint16_t>(n), static_cast<uint16_t>(n), 0, static_cast<uint16_t>(n),
                       n16, 1, 0));
  const uint32_t c0 = 32 / sizeof(T), fractals = (n + c0 - 1) / c0 * (n16 / 16);
  LoadData(All<T>(TPosition::B2, 64 * 1024), l1,
           LoadData2DParams(0, static_cast<uint8_t>(fractals), 1, 0, 0, false, 0));
}

}  // namespace

#define KERNEL extern "C" __global__ __aicore__ void

KERNEL nd2nz(GM_ADDR x, GM_ADDR y, uint16_t nd, uint16_t n, uint16_t d, uint16_t srcNd, uint16_t srcD,
             uint16_t dstC0, uint16_t dstN, uint16_t dstNd, uint32_t count) {
  LocalTensor<half> l1 = All<half>(TPosition::A1, 512 * 1024);
  DataCopy(l1, Gm<half>(x), Nd2NzParams(nd, n, d, srcNd, srcD, dstC0, dstN, dstNd));
  DataCopy(Gm<half>(y), l1, count);
}

KERNEL blocks(GM_ADDR x, GM_ADDR y, uint16_t count, uint16_t len, uint16_t srcGap, uint16_t dstGap) {
  LocalTensor<half> ub = All<half>(TPosition::VECIN, 192 * 1024);
  DataCopy(ub, Gm<half>(x), DataCopyParams(count, len, srcGap, 0));
  DataCopy(Gm<half>(y), ub, DataCopyParams(count, len, 0, dstGap));
}

KERNEL pad_in(GM_ADDR x, GM_ADDR y, uint16_t count, uint32_t len, uint32_t srcGap, uint32_t dstGap,
              uint8_t left, uint8_t right, float value, uint32_t total) {
  LocalTensor<half> ub = All<half>(TPosition::VECIN, 192 * 1024);
  DataCopyPad(ub, Gm<half>(x), DataCopyExtParams(count, len, srcGap, dstGap, 0),
              DataCopyPadExtParams<half>(true, left, right, half(value)));
  DataCopy(Gm<half>(y), ub, total);
}

KERNEL pad_out(GM_ADDR x, GM_ADDR y, uint16_t count, uint32_t len, uint32_t srcGap, uint32_t dstGap,
               uint32_t total) {
  LocalTensor<half> ub = All<half>(TPosition::VECOUT, 192 * 1024);
  DataCopy(ub, Gm<half>(x), total);
  DataCopyPad(Gm<half>(y), ub, DataCopyExtParams(count, len, srcGap, dstGap, 0));
}

// The image-to-column matrix of a [c1, h, w, 16] map, read back through a product with the identity.
KERNEL image_to_column(GM_ADDR x, GM_ADDR y, GM_ADDR eye, uint32_t h, uint32_t w, uint32_t c,
                       uint32_t filterH, uint32_t filterW, uint32_t stride, uint32_t dilation, uint32_t pad,
                       uint32_t m, uint32_t mStart) {
  LocalTensor<half> l1 = All<half>(TPosition::A1, 512 * 1024);
  DataCopy(l1, Gm<half>(x), h * w * c);
  const uint32_t k = c * filterH * filterW;
  LoadIdentity<half>(eye, k, 256 * 1024);
  LoadData3DParamsV2<half> p;
  for (uint8_t& side : p.padList) side = static_cast<uint8_t>(pad);
  p.l1H = static_cast<uint16_t>(h);
  p.l1W = static_cast<uint16_t>(w);
  p.channelSize = static_cast<uint16_t>(c);
  p.kExtension = static_cast<uint16_t>(k);
  p.mExtension = static_cast<uint16_t>(m);
  p.mStartPt = static_cast<uint16_t>(mStart);
  p.filterH = static_cast<uint8_t>(filterH);
  p.filterW = static_cast<uint8_t>(filterW);
  p.strideH = p.strideW = static_cast<uint8_t>(stride);
  p.dilationFilterH = p.dilationFilterW = static_cast<uint8_t>(dilation);
  p.padValue = half(-3.0f);
  LoadData(All<half>(TPosition::A2, 64 * 1024), l1, p);
  MultiplyOut<half, float>(y, m, k, k, false);
}

// A [k, m] transposed on the way into L0A; 32-bit fractals align k to 16 there.
template <typename T>
void TransposedA(GM_ADDR x, GM_ADDR y, GM_ADDR eye, uint32_t k, uint32_t m) {
  LocalTensor<T> l1 = All<T>(TPosition::A1, 512 * 1024);
  const uint16_t k16 = static_cast<uint16_t>((k + 15) / 16 * 16),
                 m16 = static_cast<uint16_t>((m + 15) / 16 * 16);
  DataCopy(l1, Gm<T>(x),
           Nd2NzParams(1, static_cast<uint16_t>(k), static_cast<uint16_t>(m), 0, static_cast<uint16_t>(m),
                       k16, 1, 0));
  LoadIdentity<T>(eye, k, 256 * 1024);
  LoadData3DParamsV2<T> p;
  p.l1H = k16;
  p.l1W = 1;
  p.channelSize = m16;
  p.kExtension = m16;
  p.mExtension = k16;
  p.enTranspose = true;
  LoadData(All<T>(TPosition::A2, 64 * 1024), l1, p);
  MultiplyOut<T, float>(y, m, k, k, true);
}
KERNEL transposed_a_half(GM_ADDR x, GM_ADDR y, GM_ADDR eye, uint32_t k, uint32_t m) {
  TransposedA<half>(x, y, eye, k, m);
}
KERNEL transposed_a_float(GM_ADDR x, GM_ADDR y, GM_ADDR eye, uint32_t k, uint32_t m) {
  TransposedA<float>(x, y, eye, k, m);
}

// A float [k, 16] as one column of fractals, transposed by LoadDataWithTranspose into L0A: needs squares of
// two fractals.
KERNEL square_transpose_float(GM_ADDR x, GM_ADDR y, GM_ADDR eye) {
  LocalTensor<float> l1 = All<float>(TPosition::A1, 512 * 1024);
  DataCopy(l1, Gm<float>(x), Nd2NzParams(1, 16, 16, 0, 16, 16, 1, 0));
  LoadIdentity<float>(eye, 16, 256 * 1024);
  LoadData2dTransposeParams p;
  p.repeatTimes = 1;
  LoadDataWithTranspose(All<float>(TPosition::A2, 64 * 1024), l1, p);
  MultiplyOut<float, float>(y, 16, 16, 16, false);
}

namespace {

// x [m] as a column times one, so that L0C holds x in column 0, or int8 a [m, k] times b [n, k].
void FloatColumn(GM_ADDR x, GM_ADDR one, uint32_t m) {
  LocalTensor<float> l1 = All<float>(TPosition::A1, 512 * 1024);
  const uint16_t m16 = static_cast<uint16_t>((m + 15) / 16 * 16);
  DataCopy(l1, Gm<float>(x), Nd2NzParams(1, static_cast<uint16_t>(m), 1, 0, 1, m16, 1, 0));
  LoadData(All<float>(TPosition::A2, 64 * 1024), l1,
           LoadData2DParams(0, static_cast<uint8_t>(m16 / 16), 1, 0, 0, false, 0));
  LoadIdentity<float>(one, 1, 256 * 1024);
  MmadParams p;
  p.m = static_cast<uint16_t>(m);
  p.n = 1;
  p.k = 1;
  Mmad(All<float>(TPosition::CO1, 128 * 1024), All<float>(TPosition::A2, 64 * 1024),
       All<float>(TPosition::B2, 64 * 1024), p);
}

void IntProduct(GM_ADDR a, GM_ADDR b, uint32_t m, uint32_t n, uint32_t k) {
  LocalTensor<int8_t> l1 = All<int8_t>(TPosition::A1, 512 * 1024);
  LocalTensor<int8_t> l1b = l1[256 * 1024];
  const uint16_t rows = static_cast<uint16_t>(m), columns = static_cast<uint16_t>(n),
                 depth = static_cast<uint16_t>(k);
  DataCopy(l1, Gm<int8_t>(a), Nd2NzParams(1, rows, depth, 0, depth, rows, 1, 0));
  DataCopy(l1b, Gm<int8_t>(b), Nd2NzParams(1, columns, depth, 0, depth, columns, 1, 0));
  for (uint32_t i = 0; i < m / 16; ++i)
    LoadData(
        All<int8_t>(TPosition::A2, 64 * 1024)[i * (k / 32) * 512], l1[i * 512],
        LoadData2DParams(0, static_cast<uint8_t>(k / 32), static_cast<uint16_t>(m / 16), 0, 0, false, 0));
  LoadData(All<int8_t>(TPosition::B2, 64 * 1024), l1b,
           LoadData2DParams(0, static_cast<uint8_t>(k / 32 * (n / 16)), 1, 0, 0, false, 0));
  MmadParams p;
  p.m = rows;
  p.n = columns;
  p.k = depth;
  Mmad(All<int32_t>(TPosition::CO1, 128 * 1024), All<int8_t>(TPosition::A2, 64 * 1024),
       All<int8_t>(TPosition::B2, 64 * 1024), p);
}

template <typename Out, typename Acc>
void Store(GM_ADDR y, uint32_t m, uint32_t n, QuantMode_t mode, uint64_t scalar, bool relu) {
  FixpipeParamsV220 p(static_cast<uint16_t>(n), static_cast<uint16_t>(m),
                      static_cast<uint16_t>((m + 15) / 16 * 16), n, relu);
  p.quantPre = mode;
  p.deqScalar = scalar;
  Fixpipe(Gm<Out>(y), All<Acc>(TPosition::CO1, 128 * 1024), p);
}

}  // namespace

KERNEL fix_half(GM_ADDR x, GM_ADDR y, GM_ADDR one, uint32_t m, uint32_t relu) {
  FloatColumn(x, one, m);
  Store<half, float>(y, m, 1, QuantMode_t::F322F16, 0, relu != 0);
}
KERNEL fix_bf16(GM_ADDR x, GM_ADDR y, GM_ADDR one, uint32_t m, uint32_t relu) {
  FloatColumn(x, one, m);
  Store<bfloat16_t, float>(y, m, 1, QuantMode_t::F322BF16, 0, relu != 0);
}
KERNEL fix_float_int8(GM_ADDR x, GM_ADDR y, GM_ADDR one, uint32_t m, uint32_t relu, uint64_t scalar) {
  FloatColumn(x, one, m);
  Store<int8_t, float>(y, m, 1, QuantMode_t::QF322B8_PRE, scalar, relu != 0);
}
KERNEL fix_int_half(GM_ADDR a, GM_ADDR b, GM_ADDR y, uint32_t m, uint32_t n, uint32_t k, uint32_t relu,
                    uint64_t scalar) {
  IntProduct(a, b, m, n, k);
  Store<half, int32_t>(y, m, n, QuantMode_t::DEQF16, scalar, relu != 0);
}
KERNEL fix_int_uint8(GM_ADDR a, GM_ADDR b, GM_ADDR y, uint32_t m, uint32_t n, uint32_t k, uint32_t relu,
                     uint64_t scalar) {
  IntProduct(a, b, m, n, k);
  Store<uint8_t, int32_t>(y, m, n, QuantMode_t::REQ8, scalar, relu != 0);
}
KERNEL fix_int_vector(GM_ADDR a, GM_ADDR b, GM_ADDR y, GM_ADDR scales, uint32_t m, uint32_t n, uint32_t k) {
  IntProduct(a, b, m, n, k);
  LocalTensor<uint64_t> scale(TPosition::C1, 448 * 1024, n);
  DataCopy(scale, Gm<uint64_t>(scales), n);
  FixpipeParamsV220 p(static_cast<uint16_t>(n), static_cast<uint16_t>(m), static_cast<uint16_t>(m), n, false);
  p.quantPre = QuantMode_t::VREQ8;
  Fixpipe(Gm<int8_t>(y), All<int32_t>(TPosition::CO1, 128 * 1024), scale, p);
}
// NZ output: int32 in blocks of 16 columns, or 8-bit in blocks of 32 (two blocks of L0C merge).
KERNEL fix_nz(GM_ADDR a, GM_ADDR b, GM_ADDR y, uint32_t m, uint32_t n, uint32_t k, uint32_t eight,
              uint64_t scalar) {
  IntProduct(a, b, m, n, k);
  FixpipeParamsV220 p(static_cast<uint16_t>(n), static_cast<uint16_t>(m), static_cast<uint16_t>(m), 0, false);
  if (eight != 0) {
    p.dstStride = m;
    p.quantPre = QuantMode_t::REQ8;
    p.deqScalar = scalar;
    Fixpipe<int8_t, int32_t, CFG_NZ>(Gm<int8_t>(y), All<int32_t>(TPosition::CO1, 128 * 1024), p);
    return;
  }
  p.dstStride = m * 2;
  Fixpipe<int32_t, int32_t, CFG_NZ>(Gm<int32_t>(y), All<int32_t>(TPosition::CO1, 128 * 1024), p);
}

// x [n] half widened on the way to the bias table, added to zero.
KERNEL half_bias(GM_ADDR x, GM_ADDR y, GM_ADDR zeros, uint32_t n) {
  LocalTensor<half> l1 = All<half>(TPosition::C1, 512 * 1024);
  DataCopy(l1, Gm<half>(x), n);
  DataCopy(All<float>(TPosition::C2, 1024), l1, DataCopyParams(1, static_cast<uint16_t>(n / 32), 0, 0));
  DataCopy(l1, Gm<half>(zeros), 16 * 16);
  LoadData(All<half>(TPosition::A2, 64 * 1024), l1, LoadData2DParams(0, 1, 1, 0, 0, false, 0));
  LoadData(All<half>(TPosition::B2, 64 * 1024), l1,
           LoadData2DParams(0, static_cast<uint8_t>(n / 16), 0, 0, 0, false, 0));
  MmadParams p;
  p.m = 16;
  p.n = static_cast<uint16_t>(n);
  p.k = 16;
  p.cmatrixInitVal = false;
  Mmad(All<float>(TPosition::CO1, 128 * 1024), All<half>(TPosition::A2, 64 * 1024),
       All<half>(TPosition::B2, 64 * 1024), All<float>(TPosition::C2, 1024), p);
  Store<float, float>(y, 16, n, QuantMode_t::NoQuant, 0, false);
}

// The scalar conversions of half and bfloat16_t.
KERNEL round_scalars(GM_ADDR x, GM_ADDR halves, GM_ADDR bfloats, GM_ADDR back, uint32_t n) {
  GlobalTensor<float> from = Gm<float>(x), wide = Gm<float>(back);
  GlobalTensor<half> h = Gm<half>(halves);
  GlobalTensor<bfloat16_t> b = Gm<bfloat16_t>(bfloats);
  for (uint32_t i = 0; i < n; ++i) {
    h.SetValue(i, half(from.GetValue(i)));
    b.SetValue(i, bfloat16_t(from.GetValue(i)));
    wide.SetValue(i, static_cast<float>(h.GetValue(i)));
  }
}

// a [m, k] times b [n, k] or, transposed, [k, n], of int4b_t, two to a byte along the rows. A comes to L0A by
// LoadData 2D or 3D.
KERNEL int4_product(GM_ADDR a, GM_ADDR b, GM_ADDR y, uint32_t m, uint32_t n, uint32_t k, uint32_t transposed,
                    uint32_t image) {
  const auto l1 = All<int4b_t>(TPosition::A1, 512 * 1024), l1b = l1[256 * 1024];
  const auto a2 = All<int4b_t>(TPosition::A2, 64 * 1024), b2 = All<int4b_t>(TPosition::B2, 64 * 1024);
  const uint16_t rows = static_cast<uint16_t>(m), columns = static_cast<uint16_t>(n),
                 depth = static_cast<uint16_t>(k), half_k = static_cast<uint16_t>(k / 2),
                 half_n = static_cast<uint16_t>(n / 2);
  const uint8_t steps = static_cast<uint8_t>(k / 64), squares = static_cast<uint8_t>(n / 64);
  DataCopy(l1, Gm<int4b_t>(a), Nd2NzParams(1, rows, half_k, 0, half_k, rows, 1, 0));
  if (image != 0) {
    LoadData3DParamsV2<int4b_t> p;
    p.l1H = 1;
    p.l1W = rows;
    p.channelSize = p.kExtension = depth;
    p.mExtension = rows;
    LoadData(a2, l1, p);
  } else {
    for (uint32_t i = 0; i < m / 16; ++i)
      LoadData(a2[i * steps * 1024], l1[i * 1024],
               LoadData2DParams(0, steps, static_cast<uint16_t>(m / 16), 0, 0, false, 0));
  }
  if (transposed != 0) {
    DataCopy(l1b, Gm<int4b_t>(b), Nd2NzParams(1, depth, half_n, 0, half_n, depth, 1, 0));
    for (uint32_t i = 0; i < steps; ++i)
      LoadDataWithTranspose(b2[i * n * 64], l1b[i * 4096],
                            LoadData2dTransposeParams(0, squares, steps, 3, 0));
  } else {
    DataCopy(l1b, Gm<int4b_t>(b), Nd2NzParams(1, columns, half_k, 0, half_k, columns, 1, 0));
    LoadData(b2, l1b, LoadData2DParams(0, static_cast<uint8_t>(steps * (n / 16)), 1, 0, 0, false, 0));
  }
  MultiplyOut<int4b_t, int32_t>(y, m, n, k, false);
}

// DataCopy out of L0C. how 0: one scale, half, rows; 1: a scale for each column, int8, fractals; 2: int32,
// fractals; 3: by way of L1; 4: rows without the register that says how.
KERNEL co1(GM_ADDR a, GM_ADDR b, GM_ADDR y, GM_ADDR scales, uint32_t m, uint32_t n, uint32_t k, uint32_t how,
           uint64_t scalar) {
  IntProduct(a, b, m, n, k);
  const auto c = All<int32_t>(TPosition::CO1, 128 * 1024);
  const uint16_t rows = static_cast<uint16_t>(m), columns = static_cast<uint16_t>(n);
  if (how == 0) {
    SetFixpipePreQuantFlag(scalar);
    SetFixpipeNz2ndFlag(1, 0, 0);
    DataCopy(Gm<half>(y), c, DataCopyCO12DstParams(columns, rows, n, rows, DEQF16, 1, false, true));
  } else if (how == 1) {
    const LocalTensor<uint64_t> l1(TPosition::C1, 448 * 1024, n), table(TPosition::C2PIPE2GM, 0, n);
    DataCopy(l1, Gm<uint64_t>(scales), n);
    DataCopy(table, l1, DataCopyParams(1, static_cast<uint16_t>(n / 16), 0, 0));
    SetFixPipeConfig(table);
    DataCopy(Gm<int8_t>(y), c, DataCopyCO12DstParams(columns, rows, m, rows, VREQ8, 0, false, false));
  } else if (how == 3) {
    const auto l1 = All<int8_t>(TPosition::C1, 512 * 1024);
    SetFixpipePreQuantFlag(scalar);
    DataCopy(l1, c, DataCopyCO12DstParams(columns, rows, m, rows, REQ8, 0, false, false));
    DataCopy(Gm<int8_t>(y), l1, m * n);
  } else {
    DataCopy(Gm<int32_t>(y), c,
             DataCopyCO12DstParams(columns, rows, 2 * m, rows, NoQuant, 0, false, how == 4));
  }
}

// A float [k, n] to L0B, into a tensor of `size` elements.
KERNEL into_l0b(GM_ADDR x, uint32_t k, uint32_t n, uint32_t size) {
  const auto l1 = All<float>(TPosition::B1, 512 * 1024);
  const uint16_t rows = static_cast<uint16_t>(k), columns = static_cast<uint16_t>(n);
  DataCopy(l1, Gm<float>(x), Nd2NzParams(1, rows, columns, 0, columns, rows, 1, 0));
  LoadData3DParamsV2<float> p;
  p.l1H = 1;
  p.l1W = p.mExtension = rows;
  p.channelSize = p.kExtension = columns;
  LoadData(LocalTensor<float>(TPosition::B2, 0, size), l1, p);
}
