// Brcb, Copy and BilinearInterpolation: blocks moved, broadcast, weighted.
#include "api/types.h"
#include "vector/across.h"
#include "vector/reduce.h"

namespace tilewright::twin {

namespace {

// Copy in Counter mode: the mask counts the elements of each repeat, and repeatTime holds.
uint64_t BytesPerRepeat(const Record& r) { return r.vec.mask[0] * SizeOf(r.operand[0].type); }

void DescribeCounted(Record& r, int index) {
  const uint32_t bytes = static_cast<uint32_t>(std::min<uint64_t>(BytesPerRepeat(r), UINT32_MAX));
  const uint32_t whole = bytes / kBlockBytes, rest = bytes % kBlockBytes;
  const int64_t block = int64_t{r.vec.block_stride[index]} * kBlockBytes;
  const int64_t step = int64_t{r.vec.repeat_stride[index]} * kBlockBytes;
  Operand& o = r.operand[index];
  const Operand plain = o;
  if (rest != 0 && whole != 0) {
    Operand& tail = r.operand[r.operands++];
    tail = plain;
    tail.base += static_cast<uint64_t>(whole * block);
    tail.unit = rest;
    RepeatRange(tail, r.vec.repeat, step);
  }
  o.unit = whole == 0 ? rest : kBlockBytes;
  RepeatRange(o, whole, block);
  RepeatRange(o, r.vec.repeat, step);
}

template <class T>
void Broadcast(Core& core, const Record& r) {
  const VecArgs& v = r.vec;
  const uint8_t* src = core.At(r.operand[1]);
  uint8_t* dst = core.At(r.operand[0]);
  for (uint32_t i = 0; i < v.repeat * kRepeatBlocks; ++i) {
    T block[kBlockBytes / sizeof(T)], value;
    std::memcpy(&value, src + i * sizeof(T), sizeof value);
    for (T& element : block) element = value;
    std::memcpy(dst + (uint64_t{i / kRepeatBlocks} * v.repeat_stride[0] +
                       uint64_t{i % kRepeatBlocks} * v.block_stride[0]) *
                          kBlockBytes,
                block, sizeof block);
  }
}

constexpr std::initializer_list<DType> kSixteenAndThirtyTwo = {
    DType::S16, DType::U16, DType::F16, DType::BF16, DType::S32, DType::U32, DType::F32};

}  // namespace

void DescribeBrcb(Record& r) {
  Operand& dst = r.operand[0];
  dst.unit = kBlockBytes;
  RepeatRange(dst, kRepeatBlocks, int64_t{r.vec.block_stride[0]} * kBlockBytes);
  RepeatRange(dst, r.vec.repeat, int64_t{r.vec.repeat_stride[0]} * kBlockBytes);
  r.operand[1].unit = r.vec.repeat * kRepeatBlocks * SizeOf(r.operand[1].type);
}

bool CheckBrcb(Core& core, const Record& r) {
  VecChecker check(core, r);
  check.InUb();
  check.Type(r.operand[0], kSixteenAndThirtyTwo);
  check.Require(r.vec.block_stride[0] != 0, "dstBlkStride must not be 0");
  if (!check.Ok()) return false;
  check.Apart(0, 1, "source and destination");
  return check.Ok();
}

void ExecuteBrcb(Core& core, const Record& r) {
  if (SizeOf(r.operand[0].type) == 2)
    Broadcast<uint16_t>(core, r);
  else
    Broadcast<uint32_t>(core, r);
}

void DescribeCopyRepeat(Record& r) {
  const uint32_t size = SizeOf(r.operand[0].type);
  if (size != 2 && size != 4) return;  // refused by the check
  for (int o = 0; o < 2; ++o) {
    if (r.vec.counter)
      DescribeCounted(r, o);
    else
      DescribeLanes(r, o, o, size);
  }
}

bool CheckCopyRepeat(Core& core, const Record& r) {
  VecChecker check(core, r);
  check.InUb();
  check.Type(r.operand[0], kSixteenAndThirtyTwo);
  check.Range("dstRepeatSize", r.vec.repeat_stride[0], 0, 4095);
  check.Range("srcRepeatSize", r.vec.repeat_stride[1], 0, 4095);
  return check.Ok();
}

void ExecuteCopyRepeat(Core& core, const Record& r) {
  const VecArgs& v = r.vec;
  const uint32_t size = SizeOf(r.operand[0].type), lanes = kRepeatBytes / size, per = kBlockBytes / size;
  const uint64_t counted = v.counter ? BytesPerRepeat(r) : 0;
  for (uint32_t i = 0; i < v.repeat; ++i) {
    uint8_t* dst = core.At(r.operand[0]) + uint64_t{i} * v.repeat_stride[0] * kBlockBytes;
    const uint8_t* src = core.At(r.operand[1]) + uint64_t{i} * v.repeat_stride[1] * kBlockBytes;
    for (uint64_t b = 0; b * kBlockBytes < counted; ++b)
      std::memmove(dst + b * v.block_stride[0] * kBlockBytes, src + b * v.block_stride[1] * kBlockBytes,
                   std::min<uint64_t>(kBlockBytes, counted - b * kBlockBytes));
    if (v.counter) continue;
    const LaneBits bits = BitsOfRepeat(v, i, lanes);
    for (uint32_t lane = 0, end = EndOfLanes(bits); lane < end; ++lane)
      if (bits.Has(lane))
        std::memmove(dst + uint64_t{lane / per} * v.block_stride[0] * kBlockBytes + lane % per * size,
                     src + uint64_t{lane / per} * v.block_stride[1] * kBlockBytes + lane % per * size, size);
  }
}

// BilinearInterpolation: vec.repeat rows of arg[0] columns; arg[1] is vROffset, mode repeatMode. Operands:
// dst, src0, src0Offset, src1, the temporary buffer.
void DescribeBilinear(Record& r) {
  const VecArgs& v = r.vec;
  const uint32_t steps = v.repeat * v.arg[0],
                 weights = v.mode != 0 ? steps * kRepeatBlocks : AlignUp(steps, 8);
  DescribeLanes(r, 0, 0, 2);
  DescribeRest(r);
  r.operand[2].unit = steps * kRepeatBlocks * 4;
  r.operand[3].unit = weights * 2;
  r.operand[4].unit = steps * kRepeatBytes + weights * kBlockBytes;
}

bool CheckBilinear(Core& core, const Record& r) {
  VecChecker check(core, r);
  check.InUb();
  check.Type(r.operand[0], {DType::F16});
  check.Range("hRepeat", r.vec.arg[0], 1, 255);
  check.Range("vRepeat", r.vec.repeat, 1, 255);
  check.Range("vROffset", r.vec.arg[1], 128, 65534);
  check.Require(r.vec.arg[1] % 16 == 0, "vROffset is not a multiple of 32 bytes");
  if (!check.Ok()) return false;
  check.Require(r.operand[1].base != r.operand[3].base && r.operand[1].base != r.operand[2].base,
                "src0, src0Offset and src1 must not overlap");
  check.Apart(2, 3, "src0Offset and src1");
  return check.Ok();
}

void ExecuteBilinear(Core& core, const Record& r) {
  const VecArgs& v = r.vec;
  const uint8_t* weights = core.At(r.operand[3]);
  const LaneBits bits = BitsOfRepeat(v, 0, 128);
  for (uint32_t row = 0; row < v.repeat; ++row) {
    uint8_t* dst = core.At(r.operand[0]) + uint64_t{row} * v.repeat_stride[0] * kBlockBytes;
    for (uint32_t b = 0; b < kRepeatBlocks; ++b) {
      float sums[16];
      for (uint32_t column = 0; column < v.arg[0]; ++column) {
        const uint32_t step = row * v.arg[0] + column, at = step * kRepeatBlocks + b;
        uint32_t offset;
        std::memcpy(&offset, core.At(r.operand[2]) + uint64_t{at} * 4, 4);
        if (!Reaches(core, r, offset, kBlockBytes, kBlockBytes)) return;
        uint16_t block[16], weight;
        std::memcpy(block, core.At(Mem::UB, v.scalar + offset), sizeof block);
        std::memcpy(&weight, weights + (v.mode != 0 ? at : step) * 2, 2);
        for (uint32_t e = 0; e < 16; ++e) {
          const float product = RoundHalf(HalfToFloat(block[e]) * HalfToFloat(weight), v.saturate);
          sums[e] = column == 0 ? product : RoundHalf(sums[e] + product, v.saturate);
        }
      }
      for (uint32_t e = 0; e < 16; ++e) {
        const uint16_t h = FloatToHalf(sums[e]);
        if (bits.Has(b * 16 + e))
          std::memcpy(dst + uint64_t{b} * v.block_stride[0] * kBlockBytes + e * 2, &h, 2);
      }
    }
  }
}

}  // namespace tilewright::twin
