// Parameters -> operand byte ranges, one function an instruction.
#include <algorithm>

#include "machine.h"

namespace tilewright::twin {

namespace {

void Repeat(Operand& o, uint32_t count, int64_t stride) {
  if (count <= 1) return;
  if (o.dims == 0 && stride == static_cast<int64_t>(o.unit)) {
    o.unit *= count;
    return;
  }
  o.dim[o.dims++] = {count, stride};
}

void DescribeCopy(Record& r) {
  const CopyParams& p = r.copy;
  Operand &dst = r.operand[0], &src = r.operand[1];
  const uint32_t widen = dst.type == DType::F32 && src.type == DType::F16 ? 2 : 1;
  dst.unit = p.bytes * widen;
  src.unit = p.bytes;
  Repeat(dst, p.count, p.dst_step);
  Repeat(src, p.count, p.src_step);
}

void DescribePad(Record& r) {
  const CopyPadParams& p = r.pad;
  Operand &dst = r.operand[0], &src = r.operand[1];
  dst.unit = dst.mem == Mem::GM ? p.bytes : AlignUp(p.bytes + (p.left + p.right) * SizeOf(dst.type), 32);
  src.unit = p.bytes;
  Repeat(dst, p.count, p.dst_step);
  Repeat(src, p.count, p.src_step);
}

void DescribeNd2Nz(Record& r) {
  const Nd2NzArgs& p = r.nd2nz;
  Operand &dst = r.operand[0], &src = r.operand[1];
  const uint32_t size = src.type == DType::S4 ? 1 : SizeOf(src.type);  // S4 is counted in bytes
  src.unit = p.d * size;
  Repeat(src, p.n, static_cast<int64_t>(p.src_d) * size);
  Repeat(src, p.nd, static_cast<int64_t>(p.src_nd) * size);
  dst.unit = 32;
  Repeat(dst, p.n, static_cast<int64_t>(p.dst_n) * 32);
  Repeat(dst, CeilDiv(p.d * size, 32), static_cast<int64_t>(p.dst_c0) * 32);
  Repeat(dst, p.nd, static_cast<int64_t>(p.dst_nd) * size);
}

void DescribeNz2Nd(Record& r) {
  const Nz2NdArgs& p = r.nz2nd;
  Operand &dst = r.operand[0], &src = r.operand[1];
  const uint32_t size = SizeOf(src.type);
  dst.unit = p.d * size;
  Repeat(dst, p.n, static_cast<int64_t>(p.dst_d) * size);
  Repeat(dst, p.nd, static_cast<int64_t>(p.dst_nd) * size);
  src.unit = p.n * 16 * size;
  Repeat(src, CeilDiv(p.d, 16), static_cast<int64_t>(p.src_n) * 16 * size);
  Repeat(src, p.nd, static_cast<int64_t>(p.src_nd) * 256 * size);
}

void DescribeFill(Record& r) {
  r.operand[0].unit = r.fill.bytes;
  Repeat(r.operand[0], r.fill.count, r.fill.step);
}

void DescribeLoad2d(Record& r) {
  const Load2dParams& p = r.load2d;
  Operand &dst = r.operand[0], &src = r.operand[1];
  src.base += uint64_t{p.start} * 512;
  src.unit = 512;
  Repeat(src, p.repeat, (p.decrease ? -512 : 512) * static_cast<int64_t>(p.src_stride));
  dst.unit = 512;
  Repeat(dst, p.repeat, (int64_t{p.dst_gap} + 1) * 512);
}

void DescribeLoadTranspose(Record& r) {
  const Load2dParams& p = r.load2d;
  Operand &dst = r.operand[0], &src = r.operand[1];
  const uint32_t fractals = src.type == DType::S4 ? 4 : SizeOf(src.type) == 2 ? 1 : 2;
  const int64_t square = 512 * fractals;
  src.base += p.start * static_cast<uint64_t>(square);
  src.unit = static_cast<uint32_t>(square);
  Repeat(src, p.repeat, (p.decrease ? -square : square) * static_cast<int64_t>(p.src_stride));
  dst.unit = 512;
  Repeat(dst, fractals, (int64_t{p.frac_gap} + 1) * 512);
  Repeat(dst, p.repeat, (int64_t{p.dst_gap} + 1) * 512);
}

void DescribeLoad3d(Record& r) {
  Load3dParams& p = r.load3d;
  Operand &dst = r.operand[0], &src = r.operand[1];
  const uint32_t c0 = ColumnsOf(src.type);
  if (c0 == 0) return;  // refused by the check
  p.map = src.base;
  const uint32_t rows = static_cast<uint32_t>(p.h) * p.w;
  const bool transposed = dst.mem == Mem::L0B || p.transpose, columns = p.repeat_mode != 0;
  const uint32_t m_all = AlignUp(p.m_ext, 16) * (columns ? 1 : p.repeat_time);
  const uint32_t k_all = CeilDiv(p.k_ext, c0) * (columns ? p.repeat_time : 1);
  if (!transposed) {
    dst.unit = m_all / 16 * k_all * 512;
  } else {  // rows up to the next 16 keep their place but are not written
    const uint32_t n_blocks = CeilDiv(k_all * c0, 16);
    if (dst.mem == Mem::L0B && k_all * c0 % 16 != 0) {
      dst.unit = k_all * c0 * 32;
      Repeat(dst, m_all / std::min(c0, 16u), int64_t{n_blocks} * 512);
    } else {
      dst.unit = n_blocks * (m_all / std::min(c0, 16u)) * 512;
    }
  }
  const bool plain = p.filter_w == 1 && p.filter_h == 1 && p.stride_w == 1 && p.stride_h == 1 &&
                     (p.pad[0] | p.pad[1] | p.pad[2] | p.pad[3]) == 0 && p.repeat_time == 1;
  if (plain && p.m_start < rows) {
    src.base += (uint64_t{p.k_start} / c0 * rows + p.m_start) * 32;
    src.unit = std::min<uint32_t>(p.m_ext, rows - p.m_start) * 32;
    Repeat(src, CeilDiv(p.k_ext, c0), static_cast<int64_t>(rows) * 32);
  } else {
    src.unit = rows * 32 * CeilDiv(p.c, c0);
  }
  if (p.boundary != 0 && ExtentOf(src).end > p.boundary) {  // goes on at the start of L1
    src.base = 0;
    src.unit = p.boundary;
    src.dims = 0;
  }
}

void DescribeMmad(Record& r) {
  const MmadArgs& p = r.mmad;
  Operand &c = r.operand[0], &a = r.operand[1], &b = r.operand[2];
  const uint32_t c0 = std::max(ColumnsOf(a.type), 1u);
  const uint32_t k_blocks = p.k_align16 && a.type == DType::F32 ? CeilDiv(p.k, 16) * 2 : CeilDiv(p.k, c0);
  a.unit = p.m == 1 ? CeilDiv(p.k * 32, c0) : CeilDiv(p.m, 16) * k_blocks * 512;
  b.unit = CeilDiv(p.k, c0) * CeilDiv(p.n, 16) * 512;
  c.unit = CeilDiv(p.m, 16) * CeilDiv(p.n, 16) * 1024;
  if (r.operands > 3) r.operand[3].unit = p.n * 4u;
}

void DescribeFixpipe(Record& r) {
  const FixpipeArgs& p = r.fix;
  Operand &dst = r.operand[0], &src = r.operand[1];
  const uint32_t size = SizeOf(dst.type);
  src.unit = p.m * 64;
  Repeat(src, CeilDiv(p.n, 16), static_cast<int64_t>(p.src_stride) * 64);
  Repeat(src, p.nd, static_cast<int64_t>(p.src_nd) * 1024);
  if (p.to_nd) {
    dst.unit = p.n * size;
    Repeat(dst, p.m, static_cast<int64_t>(p.dst_stride) * size);
    Repeat(dst, p.nd, static_cast<int64_t>(p.dst_nd) * size);
  } else {
    const uint32_t columns = size == 1 ? 32 : p.channel_split ? 8 : 16;
    dst.unit = p.m * columns * size;
    Repeat(dst, CeilDiv(p.n, columns), static_cast<int64_t>(p.dst_stride) * 32);
  }
  if (r.operands > 2) r.operand[2].unit = p.n * 8;
}

}  // namespace

void Describe(Record& r) {
  switch (r.op) {
    case Op::Copy:
      return DescribeCopy(r);
    case Op::CopyPad:
      return DescribePad(r);
    case Op::Nd2Nz:
      return DescribeNd2Nz(r);
    case Op::Nz2Nd:
      return DescribeNz2Nd(r);
    case Op::Fill:
      return DescribeFill(r);
    case Op::Load2d:
      return DescribeLoad2d(r);
    case Op::LoadTranspose:
      return DescribeLoadTranspose(r);
    case Op::Load3d:
      return DescribeLoad3d(r);
    case Op::Mmad:
      return DescribeMmad(r);
    case Op::Fixpipe:
      return DescribeFixpipe(r);
    case Op::ScalarGet:
    case Op::ScalarSet:
      r.operand[0].unit = r.scalar.size;
      return;
    case Op::DataCache:
      r.operand[0].unit = r.cache.entire ? 0 : 1;
      return;
    case Op::Vector:
      return DescribeVector(r);
    default:
      return;
  }
}

bool IsNop(const Record& r) {
  switch (r.op) {
    case Op::Copy:
      return r.copy.count == 0 || r.copy.requested == 0;
    case Op::CopyPad:
      return r.pad.count == 0 || r.pad.bytes == 0;
    case Op::Nd2Nz:
      return r.nd2nz.nd == 0 || r.nd2nz.n == 0 || r.nd2nz.d == 0;
    case Op::Nz2Nd:
      return r.nz2nd.nd == 0 || r.nz2nd.n == 0 || r.nz2nd.d == 0;
    case Op::Fill:
      return r.fill.count == 0 || r.fill.bytes == 0;
    case Op::Load2d:
    case Op::LoadTranspose:
      return r.load2d.repeat == 0;
    case Op::Load3d:
      return r.load3d.h == 0 || r.load3d.w == 0 || r.load3d.c == 0 || r.load3d.k_ext == 0 ||
             r.load3d.m_ext == 0 || r.load3d.filter_w == 0 || r.load3d.filter_h == 0 ||
             r.load3d.repeat_time == 0;
    case Op::Mmad:
      return r.mmad.m == 0 || r.mmad.n == 0 || r.mmad.k == 0;
    case Op::Fixpipe:
      return r.fix.m == 0 || r.fix.n == 0 || r.fix.nd == 0;
    case Op::Vector:
      return IsNopVector(r);
    default:
      return false;
  }
}

Extent ExtentOf(const Operand& o) {
  int64_t low = 0, high = 0;
  for (int i = 0; i < o.dims; ++i) {
    const int64_t reach = o.dim[i].stride * (static_cast<int64_t>(o.dim[i].count) - 1);
    (reach < 0 ? low : high) += reach;
  }
  return {o.base + static_cast<uint64_t>(low), o.base + static_cast<uint64_t>(high) + o.unit};
}

uint64_t BytesOf(const Operand& o) {
  uint64_t bytes = o.unit;
  for (int i = 0; i < o.dims; ++i) bytes *= o.dim[i].count;
  return bytes;
}

Extent ExtentOf(const Record& r, const Operand& o) {
  if (o.lane == 0) return ExtentOf(o);
  Extent e{UINT64_MAX, 0};
  ForEachRange(r, o, [&](uint64_t begin, uint64_t bytes) {
    e.begin = std::min(e.begin, begin);
    e.end = std::max(e.end, begin + bytes);
  });
  return e;
}

uint64_t BytesOf(const Record& r, const Operand& o) {
  if (o.lane == 0) return BytesOf(o);
  uint64_t bytes = 0;
  ForEachRange(r, o, [&](uint64_t, uint64_t n) { bytes += n; });
  return bytes;
}

}  // namespace tilewright::twin
