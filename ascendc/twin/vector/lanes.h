// Lanes, repeats and ranges of vector instructions that work across lanes.
#pragma once

#include <cstring>
#include <string>

#include "machine.h"

namespace tilewright::twin {

constexpr uint32_t kBlockBytes = 32, kRepeatBytes = 256, kRepeatBlocks = 8;

// The active lanes of one repeat.
struct LaneBits {
  uint64_t word[2];
  bool Has(uint32_t lane) const { return (word[lane / 64] >> (lane % 64) & 1) != 0; }
  bool Any(uint32_t first, uint32_t count) const {  // count <= 64, not across a word
    const uint64_t bits = count >= 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
    return (word[first / 64] >> (first % 64) & bits) != 0;
  }
};

inline LaneBits BitsOfRepeat(const VecArgs& v, uint32_t repeat, uint32_t lanes) {
  LaneBits bits{{v.mask[0], v.mask[1]}};
  if (v.counter) {
    const uint64_t done = uint64_t{repeat} * lanes;
    const uint64_t left = v.mask[0] > done ? v.mask[0] - done : 0;
    bits.word[0] = left >= 64 ? ~uint64_t{0} : (uint64_t{1} << left) - 1;
    bits.word[1] = left >= 128 ? ~uint64_t{0} : left <= 64 ? 0 : (uint64_t{1} << (left - 64)) - 1;
  }
  if (lanes < 64) bits.word[0] &= (uint64_t{1} << lanes) - 1;
  if (lanes <= 64) bits.word[1] = 0;
  return bits;
}

inline bool AllLanes(const LaneBits& bits, uint32_t lanes) {
  if (lanes < 64) return bits.word[0] == (uint64_t{1} << lanes) - 1;
  return bits.word[0] == ~uint64_t{0} && (lanes == 64 || bits.word[1] == ~uint64_t{0});
}

// One past the last active lane.
inline uint32_t EndOfLanes(const LaneBits& bits) {
  if (bits.word[1] != 0) return 128 - static_cast<uint32_t>(__builtin_clzll(bits.word[1]));
  return bits.word[0] == 0 ? 0 : 64 - static_cast<uint32_t>(__builtin_clzll(bits.word[0]));
}

// `count` repetitions of what the operand is so far.
inline void RepeatRange(Operand& o, uint32_t count, int64_t stride) {
  if (count <= 1) return;
  if (o.dims == 0 && stride == static_cast<int64_t>(o.unit))
    o.unit *= count;
  else
    o.dim[o.dims++] = {count, stride};
}

// Operand `index`, whose strides are those of `which` (0 dst, 1 src0, 2 src1), as the lanes of every repeat.
inline void DescribeLanes(Record& r, int index, int which, uint32_t size) {
  const VecArgs& v = r.vec;
  Operand& o = r.operand[index];
  const uint32_t lanes = kRepeatBytes / size, per_block = kBlockBytes / size;
  const uint32_t repeats = v.repeat;
  const int64_t block = int64_t{v.block_stride[which]} * kBlockBytes;
  const int64_t step = int64_t{v.repeat_stride[which]} * kBlockBytes;
  const LaneBits first = BitsOfRepeat(v, 0, lanes);
  const bool prefix = EndOfLanes(first) == static_cast<uint32_t>(__builtin_popcountll(first.word[0]) +
                                                                 __builtin_popcountll(first.word[1]));
  if (v.counter && block == kBlockBytes && (repeats <= 1 || step == kRepeatBytes)) {
    o.unit = static_cast<uint32_t>(v.mask[0]) * size;
    return;
  }
  const uint32_t end = v.counter && repeats > 1 ? lanes : EndOfLanes(first);
  o.unit = kBlockBytes;
  const bool whole = prefix && end % per_block == 0 && (!v.counter || v.mask[0] % per_block == 0);
  if (whole && (!v.counter || v.mask[0] % lanes == 0 || repeats == 1)) {
    RepeatRange(o, end / per_block, block);
    RepeatRange(o, repeats, step);
    return;
  }
  o.lane = static_cast<uint8_t>(size);
  o.dims = 2;
  o.dim[0] = {v.counter && repeats > 1 ? kRepeatBlocks : CeilDiv(end, per_block), block};
  o.dim[1] = {repeats, step};
}

// The blocks of a repeat in lane order: where they lie if they touch, else copied to `buffer` of 256 bytes.
// Of a masked repeat nothing beyond the last active block is read, which may be the end of the memory.
inline const uint8_t* FetchRepeat(const uint8_t* src, int64_t block, uint32_t blocks, uint8_t* buffer) {
  if (block == kBlockBytes && blocks == kRepeatBlocks) return src;
  if (blocks < kRepeatBlocks)
    std::memset(buffer + blocks * kBlockBytes, 0, kRepeatBytes - blocks * kBlockBytes);
  for (uint32_t b = 0; b < blocks; ++b) std::memcpy(buffer + b * kBlockBytes, src + b * block, kBlockBytes);
  return buffer;
}

// What a gather reads is known when it runs: operand 1 is all from its address to the end of its buffer, and
// offsets count from VecArgs::scalar.
void DescribeRest(Record& r);
// Whether `bytes` at `offset` lie in that buffer, and at a multiple of `align`; reports if not.
bool Reaches(Core& core, const Record& r, uint64_t offset, uint32_t bytes, uint32_t align);

// What the checks of these instructions share: one sentence a finding.
class VecChecker {
 public:
  VecChecker(Core& core, const Record& record) : core_(core), r_(record) {}
  void Require(bool good, const char* what) {
    if (!good) Bad(FindingKind::IllegalParameter, what);
  }
  void Range(const char* name, uint64_t value, uint64_t low, uint64_t high) {
    if (value < low || value > high)
      Bad(FindingKind::IllegalParameter, std::string(name) + " is " + std::to_string(value) +
                                             ", allowed are " + std::to_string(low) + ".." +
                                             std::to_string(high));
  }
  void InUb() {
    for (int i = 0; i < r_.operands; ++i)
      if (r_.operand[i].mem != Mem::UB) Bad(FindingKind::IllegalMemory, "every operand must lie in ub");
  }
  void Type(const Operand& o, std::initializer_list<DType> allowed);
  // Where the documentation forbids it: the two operands share no byte.
  void Apart(int a, int b, const char* what);
  bool Ok() const { return ok_; }

 private:
  void Bad(FindingKind kind, const std::string& message) {
    core_.Report(kind, std::string(Name(r_.vec.op)) + ": " + message, r_.pipe, r_.at);
    ok_ = false;
  }

  Core& core_;
  const Record& r_;
  bool ok_ = true;
};

}  // namespace tilewright::twin
