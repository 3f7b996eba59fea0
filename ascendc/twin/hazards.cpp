#include "hazards.h"

#include <algorithm>
#include <cstring>

#include "machine.h"

namespace tilewright::twin {

namespace {

constexpr uint32_t kOrderedTile = 10;  // fractals of C from which the hardware orders consecutive Mmads

}  // namespace

const char* Name(Hazard hazard) {
  constexpr const char* names[] = {"none", "read after write", "write after read", "write after write"};
  return names[static_cast<int>(hazard)];
}

Site SiteOf(const Record& r) {
  Site site{r.at, static_cast<uint16_t>(SlotOf(r)), false, false};
  if (r.op == Op::Mmad) {
    site.unit_flag = r.mmad.unit_flag != 0;
    site.small_tile = CeilDiv(r.mmad.m, 16) * CeilDiv(r.mmad.n, 16) < kOrderedTile;
  }
  if (r.op == Op::Fixpipe) site.unit_flag = r.fix.unit_flag != 0;
  return site;
}

bool HardwareOrders(Hazard hazard, Mem mem, Pipe earlier, const Site& before, Pipe later, const Site& after) {
  if (earlier == Pipe::S && (later == Pipe::S || hazard == Hazard::War))
    return true;  // a value read is at hand
  if (mem == Mem::L0C && before.unit_flag && after.unit_flag) return true;
  if (earlier != later) return false;
  if (hazard == Hazard::War) return true;  // a pipe issues in order: reads precede later writes
  return later == Pipe::M && mem == Mem::L0C && !after.small_tile;
}

struct Shadow::Visitor {
  const Record& record;
  const Clock& clock;
  const std::vector<Site>* sites;
  Access& access;
  Site site;
  Mem mem;
  Pipe pipe;
  uint32_t mark;  // index + 1
  bool write, padding;
  uint64_t at = 0;  // the byte looked at

  bool Ordered(Hazard hazard, Pipe q, uint32_t index) const {
    return clock.Knows(q, index) ||
           HardwareOrders(hazard, mem, q, sites[static_cast<int>(q)][index], pipe, site);
  }
  void Clash(Hazard hazard, Pipe q, uint32_t other, uint32_t bytes) {
    if (other == 0 || (q == pipe && other == mark)) return;  // nothing waits for itself
    if (Ordered(hazard, q, other - 1)) return;
    Conflict& c = (hazard == Hazard::War ? access.with_read : access.with_write)[static_cast<int>(q)];
    if (c.hazard == Hazard::None) c = {hazard, other - 1, at, at};
    access.conflicts = true;
    c.index = std::max(c.index, other - 1);
    c.begin = std::min(c.begin, at);
    c.end = std::max(c.end, at + bytes);
  }
  void Look(Cell& cell, uint32_t bytes) {
    if (write) {
      Clash(Hazard::Waw, cell.write_pipe, cell.write, bytes);
      for (int q = 0; q < kPipes; ++q) Clash(Hazard::War, static_cast<Pipe>(q), cell.read[q], bytes);
      std::memset(cell.read, 0, sizeof cell.read);
      cell.write = mark;
      cell.write_pipe = pipe;
      cell.defined = true;
      cell.padding = padding;
    } else {
      Clash(Hazard::Raw, cell.write_pipe, cell.write, bytes);
      cell.read[static_cast<int>(pipe)] = mark;
      access.bytes += bytes;
      if (cell.defined && !cell.padding) return;
      if (access.undefined == 0) access.undefined_begin = at;
      access.undefined += bytes;
      access.undefined_end = at + bytes;
      access.padding = access.padding || cell.padding;
    }
  }
};

Shadow::Shadow(const Soc& soc) {
  for (int m = 1; m < kMems; ++m) {
    const uint32_t grains = CeilDiv(soc.capacity[m], kGrain);
    memory_[m].cells.resize(grains);
    memory_[m].split.resize(grains);
  }
}

void Shadow::Reset() {
  for (Memory& memory : memory_) {
    std::fill(memory.cells.begin(), memory.cells.end(), Cell{});
    std::fill(memory.split.begin(), memory.split.end(), false);
    memory.bytes.clear();
  }
}

void Shadow::Walk(Memory& memory, uint64_t begin, uint64_t bytes, Visitor& visitor) {
  const uint64_t end = begin + bytes;
  while (begin < end) {
    const auto grain = static_cast<uint32_t>(begin / kGrain);
    const uint64_t first = uint64_t{grain} * kGrain, stop = std::min(end, first + kGrain);
    const bool whole = begin == first && stop == first + kGrain;
    visitor.at = begin;
    if (whole && !memory.split[grain]) {
      visitor.Look(memory.cells[grain], kGrain);
    } else {
      auto& cells = memory.bytes[grain];
      if (!memory.split[grain]) {
        if (cells == nullptr) cells = std::make_unique<Cell[]>(kGrain);
        std::fill_n(cells.get(), kGrain, memory.cells[grain]);
        memory.split[grain] = true;
      }
      for (uint64_t b = begin; b < stop; ++b) {
        visitor.at = b;
        visitor.Look(cells[b - first], 1);
      }
      if (whole && visitor.write) {
        memory.cells[grain] = cells[0];
        memory.split[grain] = false;
      }
    }
    begin = stop;
  }
}

Access Shadow::Touch(const Record& r, int operand, uint32_t index, const Clock& clock,
                     const std::vector<Site>* sites) {
  const Operand& o = r.operand[operand];
  Access access;
  Memory& memory = memory_[static_cast<int>(o.mem)];
  Visitor visitor{r, clock, sites, access, SiteOf(r), o.mem, r.pipe, index + 1, o.write, false};
  if (o.write && r.op == Op::CopyPad && !r.pad.pad && r.pad.bytes < kGrain && r.pad.count > 1) {
    // Rows shorter than a block: what lies behind them up to the next is nothing in particular.
    for (uint32_t row = 0; row < r.pad.count; ++row) {
      const uint64_t begin = o.base + static_cast<uint64_t>(int64_t{row} * r.pad.dst_step);
      visitor.padding = false;
      Walk(memory, begin, r.pad.bytes, visitor);
      visitor.padding = true;
      Walk(memory, begin + r.pad.bytes, kGrain - r.pad.bytes, visitor);
    }
    return access;
  }
  ForEachRange(r, o, [&](uint64_t begin, uint64_t bytes) { Walk(memory, begin, bytes, visitor); });
  return access;
}

void Shadow::Define(Memory& memory, uint64_t begin, uint64_t end) {
  end = std::min<uint64_t>(CeilDiv(static_cast<uint32_t>(end), kGrain), memory.cells.size());
  for (uint64_t grain = begin / kGrain; grain < end; ++grain) {
    Cell* cells =
        memory.split[grain] ? memory.bytes[static_cast<uint32_t>(grain)].get() : &memory.cells[grain];
    for (uint32_t i = 0; i < (memory.split[grain] ? kGrain : 1); ++i) {
      cells[i].defined = true;
      cells[i].padding = false;
    }
  }
}

void Shadow::Forget(Mem mem, uint64_t begin, uint64_t end) {
  Memory& memory = memory_[static_cast<int>(mem)];
  Cell written{};
  written.defined = true;
  end = std::min<uint64_t>(CeilDiv(static_cast<uint32_t>(end), kGrain), memory.cells.size());
  for (uint64_t grain = begin / kGrain; grain < end; ++grain) {
    memory.cells[grain] = written;
    memory.split[grain] = false;
  }
}

void Shadow::Forgive(const Record& r) {
  for (int i = 0; i < r.operands; ++i) {
    const Operand& o = r.operand[i];
    // Where it would have written may be what is wrong with it, so all of the buffer.
    if (o.write && o.mem != Mem::GM) Define(memory_[static_cast<int>(o.mem)], o.lo, o.hi);
  }
}

}  // namespace tilewright::twin
