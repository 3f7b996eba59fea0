// Transpose and TransDataTo5HD.
#include <algorithm>
#include <vector>

#include "vector/across.h"
#include "vector/lanes.h"

namespace tilewright::twin {

namespace {

// AscendC::TransposeType, in VecArgs::mode; arg holds n, c, h, w.
enum Kind : uint8_t { kNothing = 0, kSquare = 10, kToNhwc = 11, kToNchw = 12 };

constexpr uint32_t kList = 16;

template <class T>
void TransposeMany(Core& core, const Record& r) {
  const VecArgs& v = r.vec;
  const bool square = v.mode == kSquare;
  const uint32_t count = square ? 1 : v.arg[0];
  uint32_t rows = square ? 16 : v.arg[1], columns = square ? 16 : v.arg[2] * v.arg[3];
  if (v.mode == kToNchw) std::swap(rows, columns);
  const uint64_t elements = uint64_t{rows} * columns;
  std::vector<T> from(elements), to(elements);  // source and destination of a square may be one
  for (uint32_t n = 0; n < count; ++n) {
    std::memcpy(from.data(), core.At(r.operand[1]) + n * elements * sizeof(T), elements * sizeof(T));
    for (uint32_t y = 0; y < rows; ++y)
      for (uint32_t x = 0; x < columns; ++x) to[uint64_t{x} * rows + y] = from[uint64_t{y} * columns + x];
    std::memcpy(core.At(r.operand[0]) + n * elements * sizeof(T), to.data(), elements * sizeof(T));
  }
}

// A list of block addresses as one range if they lie regularly, else as all between the first and the last.
void DescribeList(Operand& o, const uint32_t (&list)[kList], uint32_t unit, uint32_t offset, uint32_t repeat,
                  int64_t step) {
  const auto at = [&](uint32_t i) { return static_cast<int64_t>(list[i]); };
  o.base = list[0] + offset;
  o.unit = unit;
  for (uint32_t run = kList; run > 1; run /= 2) {
    const int64_t inner = at(1) - at(0), outer = run < kList ? at(run) - at(0) : 0;
    bool regular = true;
    for (uint32_t i = 0; i < kList; ++i)
      regular = regular && at(i) == at(0) + i % run * inner + i / run * outer;
    if (!regular) continue;
    RepeatRange(o, run, inner);
    RepeatRange(o, kList / run, outer);
    RepeatRange(o, repeat, step);
    return;
  }
  const auto [low, high] = std::minmax_element(list, list + kList);
  o.base = *low + offset;
  o.unit = *high - *low + unit;
  RepeatRange(o, repeat, step);
}

// 16 source blocks are the columns of what is written to 16 destination blocks.
void MoveBlocks(uint8_t (&out)[kList * kBlockBytes], const uint8_t (&in)[kList * kBlockBytes], uint32_t size,
                uint32_t src_half) {
  // 8-bit elements: half a block each way; 32-bit ones: two blocks a row.
  const uint32_t rows = size == 1 ? 16 : kBlockBytes / size;
  for (uint32_t row = 0; row < rows; ++row)
    for (uint32_t i = 0; i < kList; ++i) {
      const uint32_t to = size == 1 ? row * kBlockBytes + i : (row * kList + i) * size;
      std::memcpy(out + to, in + i * kBlockBytes + (src_half + row) * size, size);
    }
}

}  // namespace

void DescribeTranspose(Record& r) {
  const VecArgs& v = r.vec;
  const uint32_t size = SizeOf(r.operand[1].type);
  const uint64_t bytes = v.mode == kSquare ? 512 : uint64_t{v.arg[0]} * v.arg[1] * v.arg[2] * v.arg[3] * size;
  for (int o = 0; o < 2; ++o)
    r.operand[o].unit = static_cast<uint32_t>(std::min<uint64_t>(bytes, UINT32_MAX));
  if (r.operands < 3) return;
  const uint32_t tile = (size == 1 ? 32 : 16) * kBlockBytes;  // h0 * w0 elements
  r.operand[2].unit = v.mode == kToNhwc   ? (v.arg[1] + 2) * tile
                      : v.mode == kToNchw ? (v.arg[1] * 2 + 1) * tile
                                          : 0;
}

bool CheckTranspose(Core& core, const Record& r) {
  const VecArgs& v = r.vec;
  VecChecker check(core, r);
  check.InUb();
  const bool basic = r.operands < 3;
  check.Require(v.mode == kNothing || (v.mode >= kSquare && v.mode <= kToNchw),
                "transposeType must be TRANSPOSE_ND2ND_B16, TRANSPOSE_NCHW2NHWC or TRANSPOSE_NHWC2NCHW");
  if (basic)
    check.Type(r.operand[1], {DType::S16, DType::U16, DType::F16});
  else if (v.mode == kSquare)
    check.Type(r.operand[1], {DType::U16});
  else
    check.Type(r.operand[1], {DType::S8, DType::U8, DType::S16, DType::U16, DType::F16, DType::S32,
                              DType::U32, DType::F32});
  if (!check.Ok() || basic) return check.Ok();
  if (v.mode == kSquare) {
    check.Require(v.arg[2] == 16 && v.arg[3] == 16, "TRANSPOSE_ND2ND_B16 takes hSize 16 and wSize 16");
    return check.Ok();
  }
  check.Range("cSize", v.arg[1], 0, 4095);
  check.Range("hSize * wSize", uint64_t{v.arg[2]} * v.arg[3], 0, 4095);
  check.Require(v.arg[2] * v.arg[3] * SizeOf(r.operand[1].type) % kBlockBytes == 0,
                "hSize * wSize elements are not a multiple of 32 bytes");
  if (!check.Ok()) return false;
  check.Apart(0, 1, "source and destination");
  return check.Ok();
}

void ExecuteTranspose(Core& core, const Record& r) {
  switch (SizeOf(r.operand[1].type)) {
    case 1:
      return TransposeMany<uint8_t>(core, r);
    case 2:
      return TransposeMany<uint16_t>(core, r);
    default:
      return TransposeMany<uint32_t>(core, r);
  }
}

// arg[0], arg[1]: whether destination and source are the high halves of 8-bit blocks. Of a single repeat the
// strides are added to the addresses; of several, from the second on.
void DescribeTransData(Record& r) {
  const BlockLists& p = r.lists;
  const uint32_t size = SizeOf(r.operand[0].type), unit = size == 1 ? 16 : kBlockBytes;
  for (int o = 0; o < 2; ++o) {
    const int64_t step = int64_t{p.vec.repeat_stride[o]} * kBlockBytes;
    const uint32_t half = size == 1 && p.vec.arg[o] != 0 ? 16 : 0;
    const uint32_t start = p.vec.repeat == 1 ? static_cast<uint32_t>(step) : 0;
    DescribeList(r.operand[o], o == 0 ? p.dst : p.src, unit, half + start, p.vec.repeat, step);
  }
}

bool CheckTransData(Core& core, const Record& r) {
  VecChecker check(core, r);
  check.InUb();
  check.Type(r.operand[0],
             {DType::S8, DType::U8, DType::S16, DType::U16, DType::F16, DType::S32, DType::U32, DType::F32});
  for (uint32_t i = 0; i < kList; ++i)
    check.Require(r.lists.dst[i] % kBlockBytes == 0 && r.lists.src[i] % kBlockBytes == 0,
                  "an address of the lists is not a multiple of 32");
  return check.Ok();
}

uint32_t AlignTransData(const Record& r, int) { return SizeOf(r.operand[0].type) == 1 ? 16 : kBlockBytes; }

void ExecuteTransData(Core& core, const Record& r) {
  const BlockLists& p = r.lists;
  const uint32_t size = SizeOf(r.operand[0].type), unit = size == 1 ? 16 : kBlockBytes;
  const uint32_t dst_half = size == 1 && p.vec.arg[0] != 0 ? 16 : 0,
                 src_half = size == 1 && p.vec.arg[1] != 0 ? 16 : 0;
  uint8_t in[kList * kBlockBytes], out[kList * kBlockBytes];
  for (uint32_t i = 0; i < p.vec.repeat; ++i) {
    const uint64_t times = p.vec.repeat == 1 ? 1 : i;
    const uint64_t dst_step = times * p.vec.repeat_stride[0] * kBlockBytes;
    const uint64_t src_step = times * p.vec.repeat_stride[1] * kBlockBytes;
    for (uint32_t b = 0; b < kList; ++b)
      std::memcpy(in + b * kBlockBytes, core.At(Mem::UB, p.src[b] + src_step), kBlockBytes);
    MoveBlocks(out, in, size, src_half);
    for (uint32_t b = 0; b < kList; ++b)
      std::memcpy(core.At(Mem::UB, p.dst[b] + dst_step) + dst_half, out + b * kBlockBytes, unit);
  }
}

}  // namespace tilewright::twin
