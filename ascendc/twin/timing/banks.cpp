// Bank conflicts of UB: 48 banks of 128 rows of 32 B, in 16 groups of 3. Address bits: [4:0] within a row,
// [8:5] group, [15:9] row, [17:16] bank of the group (asc-devkit, bank_conflict_ub README).
#include <algorithm>

#include "timing/costs.h"

namespace tilewright::twin::timing {

namespace {

constexpr uint32_t kBlocks = 8;  // of one repeat

uint32_t GroupOf(uint64_t address) { return address >> 5 & 15; }
uint64_t BankBit(uint64_t address) { return uint64_t{1} << (GroupOf(address) + 16 * (address >> 16 & 3)); }

// Block addresses of one operand in one repeat; blocks read twice are read once.
struct Blocks {
  uint64_t at[kBlocks];
  uint32_t count = 0;
  void Of(uint64_t base, uint32_t stride) {
    count = stride == 0 ? 1 : kBlocks;
    for (uint32_t i = 0; i < count; ++i) at[i] = base + uint64_t{i} * stride * 32;
  }
};

}  // namespace

// Reads of one repeat meet in a bank group, writes in a bank group; the writes of a repeat come one repeat
// later and meet that one's reads in a bank.
double BankBeats(const Record& r, double read_write) {
  const VecArgs& v = r.vec;
  if (r.operands < 2 || v.repeat == 0) return 1;
  // Groups repeat after 512 B; a few repeats show the pattern of the strides.
  const bool whole = ((v.repeat_stride[0] | v.repeat_stride[1] | v.repeat_stride[2]) & 7) == 0;
  const uint32_t repeats = std::min(v.repeat, whole ? 4u : 16u);
  const int sources = std::min<int>(r.operands - 1, 2);
  double beats = 0;
  uint64_t written = 0;
  for (uint32_t i = 0; i <= repeats; ++i) {  // the first shows what it writes and is not counted
    uint8_t reads[16] = {}, writes[16] = {};
    uint64_t read = 0;
    Blocks blocks;
    for (int s = 0; s < sources; ++s) {
      const Operand& o = r.operand[1 + s];
      if (o.mem != Mem::UB) continue;
      blocks.Of(o.base + uint64_t{i} * v.repeat_stride[1 + s] * 32, v.block_stride[1 + s]);
      for (uint32_t b = 0; b < blocks.count; ++b) {
        ++reads[GroupOf(blocks.at[b])];
        read |= BankBit(blocks.at[b]);
      }
    }
    blocks.Of(r.operand[0].base + uint64_t{i} * v.repeat_stride[0] * 32, v.block_stride[0]);
    uint64_t writing = 0;
    for (uint32_t b = 0; b < blocks.count; ++b) {
      ++writes[GroupOf(blocks.at[b])];
      writing |= BankBit(blocks.at[b]);
    }
    const double most =
        std::max(*std::max_element(reads, reads + 16), *std::max_element(writes, writes + 16));
    // Where reads take two beats the write finds one of them free.
    const bool meet = most <= 1 && (read & written) != 0;
    if (i > 0) beats += std::max(1.0, most) + (meet ? read_write : 0);
    written = writing;
  }
  return beats / repeats;
}

}  // namespace tilewright::twin::timing
