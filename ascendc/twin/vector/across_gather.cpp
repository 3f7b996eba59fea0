// Gather, Gatherb and GatherMask: elements and blocks picked by offsets or masks.
#include <algorithm>
#include <string>
#include <vector>

#include "vector/across.h"
#include "vector/lanes.h"

namespace tilewright::twin {

namespace {

constexpr int kDst = 0, kSrc = 1, kOffsets = 2;

// Narrows operand 1 to what lies between the lowest and the highest offset, if that is in the buffer.
void Narrow(Record& r, uint64_t low, uint64_t high) {
  Operand& src = r.operand[kSrc];
  if (low >= high || high > src.unit) return;  // the executor says what is wrong
  src.base += low;
  src.unit = static_cast<uint32_t>(high - low);
}

template <class T>
void GatherElements(Core& core, const Record& r) {
  const VecArgs& v = r.vec;
  constexpr uint32_t kLanes = kRepeatBytes / sizeof(T);
  const uint8_t* src = core.At(r.operand[kSrc].mem, v.scalar);
  const uint8_t* offsets = core.At(r.operand[kOffsets]);
  for (uint32_t i = 0; i < v.repeat; ++i) {
    const LaneBits bits = BitsOfRepeat(v, i, kLanes);
    uint8_t* dst = core.At(r.operand[kDst]) + uint64_t{i} * v.repeat_stride[0] * kBlockBytes;
    T values[kLanes];
    LaneBits found = bits;
    const uint32_t end = EndOfLanes(bits);
    for (uint32_t lane = 0; lane < end; ++lane) {
      if (!bits.Has(lane)) continue;
      uint32_t offset;
      std::memcpy(&offset, offsets + (uint64_t{i} * kLanes + lane) * 4, 4);
      const uint64_t from = uint64_t{v.arg[0]} + offset;
      if (Reaches(core, r, from, sizeof(T), sizeof(T)))
        std::memcpy(&values[lane], src + from, sizeof(T));
      else
        found.word[lane / 64] &= ~(uint64_t{1} << (lane % 64));
    }
    for (uint32_t lane = 0; lane < end; ++lane)
      if (found.Has(lane)) std::memcpy(dst + lane * sizeof(T), &values[lane], sizeof(T));
  }
}

// GatherMask: arg[0] elements a repeat, arg[1] repeats, from src at block_stride[1] and repeat_stride[1];
// mode is the built-in pattern, 0 for bits of the user's at repeat_stride[2].
bool Keeps(uint8_t pattern, uint32_t element) {
  constexpr uint8_t kNibbles[8] = {0, 0x5, 0xa, 0x1, 0x2, 0x4, 0x8, 0xf};
  return (kNibbles[pattern] >> (element % 4) & 1) != 0;
}

uint64_t KeptPerRepeat(uint8_t pattern, uint32_t elements) {
  const uint64_t whole = elements / 4 * static_cast<uint64_t>(pattern == 7 ? 4 : pattern <= 2 ? 2 : 1);
  uint64_t rest = 0;
  for (uint32_t e = 0; e < elements % 4; ++e) rest += Keeps(pattern, e) ? 1 : 0;
  return whole + rest;
}

// How many elements a mask of the user's keeps is known when it runs.
void ReportFull(Core& core, const Record& r, uint64_t kept) {
  const Operand& dst = r.operand[kDst];
  core.ReportAccess(
      FindingKind::OutOfBounds,
      "GatherMask: the destination's buffer is full after " + std::to_string(kept) + " kept elements", r,
      dst.mem, dst.base, dst.base + dst.unit + SizeOf(dst.type), dst.lo, dst.hi);
  core.Word(StateWord::RsvdCount) = kept;
}

template <class T>
void Compact(Core& core, const Record& r) {
  const VecArgs& v = r.vec;
  constexpr uint32_t kPer = kBlockBytes / sizeof(T);
  const uint8_t* src = core.At(r.operand[kSrc]);
  uint8_t* dst = core.At(r.operand[kDst]);
  uint64_t kept = 0;
  for (uint32_t i = 0; i < v.repeat; ++i) {
    const uint8_t* from = src + uint64_t{i} * v.repeat_stride[1] * kBlockBytes;
    const uint8_t* bits =
        v.mode == 0 ? core.At(r.operand[kOffsets]) + uint64_t{i} * v.repeat_stride[2] * kBlockBytes : nullptr;
    for (uint32_t e = 0; e < v.arg[0]; ++e) {
      const bool keep = bits != nullptr ? (bits[e / 8] >> (e % 8) & 1) != 0 : Keeps(v.mode, e);
      if (!keep) continue;
      if ((kept + 1) * sizeof(T) > r.operand[kDst].unit) return ReportFull(core, r, kept);
      // Moves towards lower addresses at most: the destination may be the source.
      T value;
      std::memcpy(&value, from + uint64_t{e / kPer} * v.block_stride[1] * kBlockBytes + e % kPer * sizeof(T),
                  sizeof(T));
      std::memcpy(dst + kept++ * sizeof(T), &value, sizeof(T));
    }
  }
  core.Word(StateWord::RsvdCount) = kept;
}

}  // namespace

void DescribeGather(Record& r) {
  const uint32_t size = SizeOf(r.operand[kDst].type);
  if (size != 2 && size != 4) return;  // refused by the check
  DescribeLanes(r, kDst, 0, size);
  DescribeRest(r);
  const uint32_t lanes = kRepeatBytes / size;
  r.operand[kOffsets].unit =
      ((r.vec.repeat - 1) * lanes + EndOfLanes(BitsOfRepeat(r.vec, r.vec.repeat - 1, lanes))) * 4;
}

bool CheckGather(Core& core, const Record& r) {
  const Operand& dst = r.operand[kDst];
  VecChecker check(core, r);
  check.InUb();
  check.Type(dst, {DType::S16, DType::U16, DType::F16, DType::BF16, DType::S32, DType::U32, DType::F32});
  if (!check.Ok()) return false;
  check.Require(r.vec.arg[0] % SizeOf(dst.type) == 0, "srcBaseAddr is not a multiple of the element's size");
  check.Apart(kDst, kOffsets, "destination and offsets");
  // Documented as not supported, and yet written: said, and computed a repeat at a time.
  if (dst.base == r.operand[kSrc].base)
    core.Report(FindingKind::IllegalParameter,
                "Gather: source and destination are the same memory, which is not supported", r.pipe, r.at);
  return check.Ok();
}

void ExecuteGather(Core& core, const Record& r) {
  if (SizeOf(r.operand[kDst].type) == 2)
    GatherElements<uint16_t>(core, r);
  else
    GatherElements<uint32_t>(core, r);
}

void ResolveGather(Core& core, Record& r) {
  const VecArgs& v = r.vec;
  const uint32_t size = SizeOf(r.operand[kDst].type), lanes = kRepeatBytes / size;
  const uint8_t* offsets = core.At(r.operand[kOffsets]);
  uint64_t low = UINT64_MAX, high = 0;
  for (uint32_t i = 0; i < v.repeat; ++i) {
    const LaneBits bits = BitsOfRepeat(v, i, lanes);
    for (uint32_t lane = 0, end = EndOfLanes(bits); lane < end; ++lane) {
      if (!bits.Has(lane)) continue;
      uint32_t offset;
      std::memcpy(&offset, offsets + (uint64_t{i} * lanes + lane) * 4, 4);
      low = std::min<uint64_t>(low, uint64_t{v.arg[0]} + offset);
      high = std::max<uint64_t>(high, uint64_t{v.arg[0]} + offset + size);
    }
  }
  Narrow(r, low, high);
}

void DescribeGatherb(Record& r) {
  Operand& dst = r.operand[kDst];
  dst.unit = kBlockBytes;
  RepeatRange(dst, kRepeatBlocks, int64_t{r.vec.block_stride[0]} * kBlockBytes);
  RepeatRange(dst, r.vec.repeat, int64_t{r.vec.repeat_stride[0]} * kBlockBytes);
  DescribeRest(r);
  r.operand[kOffsets].unit = r.vec.repeat * kRepeatBlocks * 4;
}

bool CheckGatherb(Core& core, const Record& r) {
  VecChecker check(core, r);
  check.InUb();
  check.Type(r.operand[kDst], {DType::U16, DType::U32});
  if (!check.Ok()) return false;
  check.Require(r.operand[kDst].base != r.operand[kSrc].base, "source and destination are the same memory");
  check.Apart(kDst, kOffsets, "destination and offsets");
  return check.Ok();
}

void ExecuteGatherb(Core& core, const Record& r) {
  const VecArgs& v = r.vec;
  const uint8_t* src = core.At(r.operand[kSrc].mem, v.scalar);
  const uint8_t* offsets = core.At(r.operand[kOffsets]);
  for (uint32_t i = 0; i < v.repeat * kRepeatBlocks; ++i) {
    uint32_t offset;
    std::memcpy(&offset, offsets + uint64_t{i} * 4, 4);
    if (!Reaches(core, r, offset, kBlockBytes, kBlockBytes)) continue;
    std::memcpy(core.At(r.operand[kDst]) + (uint64_t{i / kRepeatBlocks} * v.repeat_stride[0] +
                                            uint64_t{i % kRepeatBlocks} * v.block_stride[0]) *
                                               kBlockBytes,
                src + offset, kBlockBytes);
  }
}

void ResolveBlocks(Core& core, Record& r) {
  const uint8_t* offsets = core.At(r.operand[kOffsets]);
  uint64_t low = UINT64_MAX, high = 0;
  for (uint32_t i = 0; i < r.operand[kOffsets].unit / 4; ++i) {
    uint32_t offset;
    std::memcpy(&offset, offsets + uint64_t{i} * 4, 4);
    low = std::min<uint64_t>(low, offset);
    high = std::max<uint64_t>(high, uint64_t{offset} + kBlockBytes);
  }
  Narrow(r, low, high);
}

void DescribeGatherMask(Record& r) {
  const VecArgs& v = r.vec;
  Operand &dst = r.operand[kDst], &src = r.operand[kSrc];
  const uint32_t size = SizeOf(src.type);
  if (size != 2 && size != 4) return;                               // refused by the check
  const uint32_t elements = std::min(v.arg[0], uint32_t{1} << 24);  // more than any buffer has
  const uint32_t bytes = elements * size, whole = bytes / kBlockBytes, rest = bytes % kBlockBytes;
  const uint64_t most = v.repeat * (v.mode == 0 || v.mode > 7 ? elements : KeptPerRepeat(v.mode, elements));
  uint64_t written = most * size;
  if (v.mode == 0 && dst.hi > dst.base) written = std::min(written, dst.hi - dst.base);
  dst.unit = static_cast<uint32_t>(std::min<uint64_t>(written, UINT32_MAX));
  const int64_t step = int64_t{v.repeat_stride[1]} * kBlockBytes,
                block = int64_t{v.block_stride[1]} * kBlockBytes;
  const Operand plain = src;
  if (rest == 0 || block == kBlockBytes || whole == 0) {
    src.unit = block == kBlockBytes || whole == 0 ? bytes : kBlockBytes;
    if (src.unit != bytes) RepeatRange(src, whole, block);
    RepeatRange(src, v.repeat, step);
  } else {
    src.unit = kBlockBytes;
    RepeatRange(src, whole, block);
    RepeatRange(src, v.repeat, step);
    Operand& tail = r.operand[r.operands++];
    tail = plain;
    tail.base += static_cast<uint64_t>(whole * block);
    tail.unit = rest;
    RepeatRange(tail, v.repeat, step);
  }
  if (v.mode != 0) return;
  r.operand[kOffsets].unit = CeilDiv(elements, 8);
  RepeatRange(r.operand[kOffsets], v.repeat, int64_t{v.repeat_stride[2]} * kBlockBytes);
}

bool CheckGatherMask(Core& core, const Record& r) {
  VecChecker check(core, r);
  check.InUb();
  check.Type(r.operand[kSrc],
             {DType::S16, DType::U16, DType::F16, DType::BF16, DType::S32, DType::U32, DType::F32});
  check.Range("src1Pattern", r.vec.mode, 0, 7);
  if (!check.Ok() || r.vec.mode != 0) return check.Ok();
  check.Type(r.operand[kOffsets], {SizeOf(r.operand[kSrc].type) == 2 ? DType::U16 : DType::U32});
  return check.Ok();
}

void ExecuteGatherMask(Core& core, const Record& r) {
  if (SizeOf(r.operand[kSrc].type) == 2)
    Compact<uint16_t>(core, r);
  else
    Compact<uint32_t>(core, r);
}

}  // namespace tilewright::twin
