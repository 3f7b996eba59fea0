// What the order of a core's instructions shows: races, reads of nothing, deadlocks, flags left behind.
#include <algorithm>

#include "api/enums.h"
#include "machine.h"

namespace tilewright::twin {

namespace {

// Vector instructions that move what they read, the useless rest of a block or a repeat along with it.
bool MovesLanes(const Record& r) {
  switch (r.op == Op::Vector ? r.vec.op : VecOp::None) {
    case VecOp::Gather:
    case VecOp::Gatherb:
    case VecOp::GatherMask:
    case VecOp::Brcb:
    case VecOp::CopyRepeat:
    case VecOp::Transpose:
    case VecOp::TransDataTo5HD:
      return true;
    default:
      return false;
  }
}

std::string Bytes(uint64_t begin, uint64_t end) { return std::to_string(begin) + ".." + std::to_string(end); }

std::string InstructionName(const Record& r) { return SlotName(SlotOf(r)); }

}  // namespace

// asc-devkit docs/zh/api, key features of synchronisation within a core, table 3: with cce-auto-sync, between
// V and V and between the scalar unit and V, MTE2 and MTE3, on vector cores only.
bool Core::AutoSynced(Pipe earlier, Pipe later) const {
  if (!machine_.options.auto_sync || kind_ == CoreKind::Cube) return false;
  return (earlier == Pipe::V && later == Pipe::V) || ((earlier == Pipe::S) != (later == Pipe::S));
}

void Core::CheckOperand(const Record& record, int operand, uint32_t index, Clock& clock) {
  const Operand& o = record.operand[operand];
  if (o.mem == Mem::GM) {
    const bool cached = record.op == Op::ScalarSet && !record.scalar.uncached;
    gm_log_.Add({record.seq, id_, record.pipe, index, clock, o, SiteOf(record), record.atomic, cached},
                *machine_.gm_room);
    return;
  }
  const Access access = shadow_->Touch(record, operand, index, clock, sites_);
  if (access.conflicts) SettleAll(record, o.mem, index, access, clock);
  if (access.undefined > 0) ReportUndefined(record, o, access);
}

// The fewest flags that mend it: those first that, once there, order the most of the rest too. Reads go
// before writes: what a write must wait for because of them usually covers the write before them.
void Core::SettleAll(const Record& record, Mem mem, uint32_t index, const Access& access,
                     const Clock& clock) {
  struct Open {
    Pipe pipe;
    Conflict conflict;
  };
  std::vector<Open> open;
  for (const Conflict* side : {access.with_read, access.with_write})
    for (int p = 0; p < kPipes; ++p)
      if (side[p].hazard != Hazard::None) open.push_back({static_cast<Pipe>(p), side[p]});
  const auto covers = [&](const Open& o) {
    const Clock& known = started_[static_cast<int>(o.pipe)][o.conflict.index];
    return std::count_if(open.begin(), open.end(),
                         [&](const Open& other) { return known.Knows(other.pipe, other.conflict.index); });
  };
  for (;;) {
    std::erase_if(open, [&](const Open& o) { return clock.Knows(o.pipe, o.conflict.index); });
    if (open.empty()) return;
    const Open next = *std::max_element(open.begin(), open.end(),
                                        [&](const Open& a, const Open& b) { return covers(a) < covers(b); });
    Settle(record, mem, next.pipe, index, next.conflict);
  }
}

// Inserts what the compiler would, or reports the race and goes on as if the flag had been there: one that is
// missing makes one finding, not one for all that stands on it.
void Core::Settle(const Record& record, Mem mem, Pipe earlier, uint32_t index, const Conflict& conflict) {
  Clock known;
  const bool inserted = AutoSynced(earlier, record.pipe);
  if (inserted) {
    known = order_.AllOf(earlier);
    ++inserted_syncs_;
  } else {
    ReportRace(record, mem, earlier, conflict);
    known = started_[static_cast<int>(earlier)][conflict.index];
    uint32_t& done = known.done[static_cast<int>(earlier)];
    done = std::max(done, conflict.index + 1);
  }
  uint32_t& own = known.done[static_cast<int>(record.pipe)];
  own = std::min(own, index);
  if (inserted) starts_after_.Join(known, *machine_.store);  // a reported flag stays missing for the schedule
  order_.Join(record.pipe, known);
}

void Core::ReportRace(const Record& record, Mem mem, Pipe earlier, const Conflict& c) {
  const Site& before = sites_[static_cast<int>(earlier)][c.index];
  Finding f{FindingKind::Race,
            "",
            record.at,
            block_,
            record.pipe,
            mem,
            true,
            c.begin,
            c.end,
            0,
            machine_.soc->capacity[static_cast<int>(mem)],
            1};
  f.missing = SyncName(earlier, record.pipe);
  f.other = before.at;
  f.other_pipe = earlier;
  const bool small = earlier == Pipe::M && record.pipe == Pipe::M;
  f.message = std::string(Name(c.hazard)) + ": " + InstructionName(record) + " on pipe " + Name(record.pipe) +
              " may start before " + SlotName(before.slot) + " on pipe " + Name(earlier) + " at " +
              PlaceName(before.at) + " has finished with " + Name(mem) + " bytes " + Bytes(c.begin, c.end) +
              "; missing " + f.missing +
              (small ? ": tiles of fewer than 10 fractals of C are not ordered by the hardware" : "");
  Add(std::move(f));
}

void Core::ReportUndefined(const Record& r, const Operand& o, const Access& a) {
  // Loads and copies take whole blocks, so some of what they move may be nothing; what is computed may not.
  const bool moves = r.pipe == Pipe::MTE1 || r.pipe == Pipe::MTE2 || r.pipe == Pipe::MTE3 ||
                     r.op == Op::Copy || r.op == Op::Mmad || MovesLanes(r);
  const bool to_gm = r.pipe == Pipe::MTE3 && a.undefined >= 32;  // more than what fills up the last block
  if (moves && a.undefined < a.bytes && !to_gm) return;
  Finding f{a.padding ? FindingKind::ShortRow : FindingKind::Uninitialized,
            "",
            r.at,
            block_,
            r.pipe,
            o.mem,
            true,
            a.undefined_begin,
            a.undefined_end,
            0,
            machine_.soc->capacity[static_cast<int>(o.mem)],
            1};
  f.message =
      InstructionName(r) + " reads " + Name(o.mem) + " bytes " + Bytes(a.undefined_begin, a.undefined_end);
  f.message += a.padding
                   ? ", which DataCopyPad left undefined: rows shorter than 32 bytes each take a block of 32"
                   : ", which nothing has written";
  Add(std::move(f));
}

const Core::Waiting* Core::SetFor(const FlagParams& flag) const {
  for (const auto& queue : queue_)
    for (const Waiting& w : queue)
      if (w.record.op == Op::SetFlag && w.record.flag.event == flag.event && w.record.flag.id == flag.id)
        return &w;
  return nullptr;
}

// Follows who waits for whom, from `waiter` on: to a wait whose flag nobody sets, or round a circle, of which
// the wait is to blame that was written before its SetFlag. That one goes on as if its flag were there.
void Core::BreakHang(const Record& waiter, bool full) {
  std::vector<const Record*> chain;
  const Waiting* set = nullptr;
  size_t first = 0;  // of the circle in the chain
  for (const Record* at = &waiter;;) {
    first = static_cast<size_t>(std::find(chain.begin(), chain.end(), at) - chain.begin());
    if (first < chain.size()) break;
    chain.push_back(at);
    set = SetFor(at->flag);
    if (set == nullptr) break;
    at = &Waiter(queue_[static_cast<int>(set->record.pipe)].front().record);
  }
  const Record* blamed = chain.back();
  if (set != nullptr) {
    chain.erase(chain.begin(), chain.begin() + static_cast<std::ptrdiff_t>(first));
    std::rotate(chain.begin(),
                std::find_if(chain.begin(), chain.end(),
                             [&](const Record* wait) { return SetFor(wait->flag)->record.seq > wait->seq; }),
                chain.end());
    blamed = chain.front();
  }
  Flag& flag = flags_[blamed->flag.event][blamed->flag.id];
  flag.reported = true;
  flag.raised.push_back(set == nullptr ? order_.AllOf(blamed->flag.from) : Clock{});
  if (set == nullptr) {
    ++flag.owed;
    return Report(FindingKind::UnpairedFlag,
                  "WaitFlag<" + FlagName(blamed->flag) + "> has no SetFlag" +
                      (full ? " among what could be issued, with the queue of a pipe full" : " before it") +
                      ": pipe " + Name(blamed->flag.to) + " would wait for ever",
                  blamed->pipe, blamed->at);
  }
  std::string text = "nothing moves any more: ";
  for (const Record* wait : chain)
    text += "pipe " + std::string(Name(wait->flag.to)) + " waits at " + PlaceName(wait->at) + " for " +
            FlagName(wait->flag) + ", which pipe " + Name(wait->flag.from) + " sets at " +
            PlaceName(SetFor(wait->flag)->record.at) + " after a wait of its own -> ";
  Report(FindingKind::Deadlock,
         text + "pipe " + Name(blamed->flag.to) + " again; SetFlag<" + FlagName(blamed->flag) +
             "> is missing before the first of these waits",
         blamed->pipe, blamed->at);
}

void Core::ReportLeftFlags() {
  for (int e = 0; e < kEvents; ++e) {
    for (int id = 0; id < kIds; ++id) {
      const Flag& flag = flags_[e][id];
      if (flag.ahead <= 0 || flag.internal || flag.reported) continue;
      FlagParams params{};
      params.event = static_cast<uint8_t>(e);
      params.id = id;
      Report(
          FindingKind::UnpairedFlag,
          "SetFlag<" + FlagName(params) + "> is never waited for; the next kernel on this core finds it set",
          AscendC::PipesOf(static_cast<AscendC::HardEvent>(e)).from, flag.at);
    }
  }
}

}  // namespace tilewright::twin
