// Who holds which part of a core's memories: reservations, queues' buffers, tiles of C kept by unit flags.
#include <algorithm>
#include <cstring>

#include "machine.h"

namespace tilewright::twin {

bool Core::UseAfterFree(const Record& record) {
  for (int i = 0; i < record.operands; ++i) {
    const Operand& o = record.operand[i];
    const Extent e = ExtentOf(record, o);
    for (const Freed& f : freed_) {
      if (f.mem != o.mem || e.begin >= f.end || f.begin >= e.end) continue;
      Finding found{FindingKind::UseAfterFree,
                    std::string(SlotName(SlotOf(record))) + " " + (o.write ? "writes" : "reads") +
                        " a queue's buffer after FreeTensor at " + PlaceName(f.at) +
                        "; AllocTensor or DeQue gives a buffer to work on",
                    record.at,
                    block_,
                    record.pipe,
                    o.mem,
                    true,
                    e.begin,
                    e.end,
                    f.begin,
                    f.end,
                    1};
      found.other = f.at;
      Add(std::move(found));
      return true;
    }
  }
  return false;
}

// asc-devkit docs/zh/api, Mmad, constraints of unitFlag: whoever works on a tile of C keeps it with 2 and
// gives it to the other pipe with 3.
void Core::CheckUnitFlag(const Record& record) {
  const bool mmad = record.op == Op::Mmad;
  const uint8_t flag = mmad ? record.mmad.unit_flag : record.op == Op::Fixpipe ? record.fix.unit_flag : 0;
  if (flag == 0) return;
  const Extent e = ExtentOf(record.operand[mmad ? 0 : 1]);
  for (const UnitTile& t : unit_tiles_) {
    if (t.pipe == record.pipe || t.begin >= e.end || e.begin >= t.end) continue;
    Finding found{FindingKind::Deadlock,
                  std::string(Name(record.op)) + " with unitFlag waits for ever for a tile of l0c that " +
                      (mmad ? "Fixpipe" : "Mmad") + " at " + PlaceName(t.at) +
                      " keeps with unitFlag 2; the last one on a tile has unitFlag 3",
                  record.at,
                  block_,
                  record.pipe,
                  Mem::L0C,
                  true,
                  e.begin,
                  e.end,
                  t.begin,
                  t.end,
                  1};
    found.other = t.at;
    found.other_pipe = t.pipe;
    Add(std::move(found));
    break;
  }
  std::erase_if(unit_tiles_, [&](const UnitTile& t) { return t.begin < e.end && e.begin < t.end; });
  if (flag == 2) unit_tiles_.push_back({e.begin, e.end, record.pipe, record.at});
}

void Core::Forget(Mem mem, uint64_t begin, uint64_t end) {
  if (shadow_ != nullptr) shadow_->Forget(mem, begin, end);
}

bool Core::Overfull(Mem mem, uint64_t address) const {
  const uint32_t capacity = Capacity(mem);
  return std::any_of(holders_.begin(), holders_.end(), [&](const Holder& h) {
    const uint64_t end = uint64_t{h.base} + h.bytes;
    return h.mem == mem && end > capacity && address >= h.base && address < end;
  });
}

void Core::Release(Mem mem, uint64_t begin, uint64_t end, bool released, Place at) {
  std::erase_if(freed_, [&](const Freed& f) { return f.mem == mem && f.begin == begin && f.end == end; });
  if (released) freed_.push_back({mem, begin, end, at});
}

Region Core::Reserve(Mem mem, uint32_t bytes, const char* holder, Place at) {
  const int m = static_cast<int>(mem);
  const uint32_t base = next_[m], rounded = AlignUp(bytes, 32);
  const uint64_t end = uint64_t{base} + rounded;
  holders_.push_back({mem, base, rounded, holder, at});
  const uint32_t capacity = Capacity(mem);
  if (end > capacity && mem != Mem::GM) {
    Finding f{FindingKind::Capacity, "", at, block_, Pipe::S, mem, true, base, end, 0, capacity, 1};
    f.message = std::string(holder) + " needs " + std::to_string(rounded) + " bytes of " + Name(mem) +
                ", which has " + std::to_string(capacity) + " and " +
                std::to_string(capacity > base ? capacity - base : 0) + " left. " + HolderMap(mem);
    Add(std::move(f));
  }
  next_[m] = static_cast<uint32_t>(std::min<uint64_t>(end, UINT32_MAX));
  counts_.peak[m] = std::max(counts_.peak[m], end);
  return {base, rounded};
}

void Core::ReleaseAll() {
  holders_.clear();
  freed_.clear();
  std::memset(next_, 0, sizeof next_);
}

std::string Core::HolderMap(Mem mem) const {
  std::string out = "Held:";
  for (const Holder& h : holders_) {
    if (h.mem != mem) continue;
    out += " [" + std::to_string(h.base) + ".." + std::to_string(uint64_t{h.base} + h.bytes) + ") " + h.what +
           " " + PlaceName(h.at) + ";";
  }
  out.back() = '.';
  return out;
}

}  // namespace tilewright::twin
