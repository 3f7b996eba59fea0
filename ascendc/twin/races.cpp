// What the order of a core's instructions shows: races, reads of nothing, deadlocks, flags left behind.
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

std::string WaitName(const Record& r) {
  if (r.op == Op::WaitFlag) return "WaitFlag<" + FlagName(r.flag) + ">";
  if (r.op == Op::SyncAll) return "SyncAll";
  if (r.cross.mode == 3) return "the wait for another block's signal";
  return "CrossCoreWaitFlag of flag " + std::to_string(r.cross.id);
}

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
    gm_log_.Add({machine_.gm_order->fetch_add(1, std::memory_order_relaxed), id_, record.pipe, index, clock,
                 o, SiteOf(record), record.atomic});
    return;
  }
  Access access = shadow_->Touch(record, operand, index, clock, sites_);
  // The compiler's barrier orders everything before it on that pipe, so looking once more finds what it does
  // not.
  if (access.conflict.hazard != Hazard::None) {
    if (AutoSynced(access.conflict.pipe, record.pipe)) {
      order_.Join(record.pipe, order_.AllOf(access.conflict.pipe));
      order_.Of(record.pipe).done[static_cast<int>(record.pipe)] =
          std::min(order_.Of(record.pipe).done[static_cast<int>(record.pipe)], index);
      ++inserted_syncs_;
    } else {
      ReportRace(record, o.mem, access.conflict);
    }
  }
  if (access.undefined > 0) ReportUndefined(record, o, access);
}

void Core::ReportRace(const Record& record, Mem mem, const Conflict& c) {
  const Site& before = sites_[static_cast<int>(c.pipe)][c.index];
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
  f.missing = SyncName(c.pipe, record.pipe);
  f.other = before.at;
  f.other_pipe = c.pipe;
  const bool small = c.pipe == Pipe::M && record.pipe == Pipe::M;
  f.message = std::string(Name(c.hazard)) + ": " + InstructionName(record) + " on pipe " + Name(record.pipe) +
              " may start before " + SlotName(before.slot) + " on pipe " + Name(c.pipe) + " at " +
              PlaceName(before.at) + " has finished with the same bytes; missing " + f.missing +
              (small ? ": tiles of fewer than 10 fractals of C are not ordered by the hardware" : "");
  Add(std::move(f));
}

void Core::ReportUndefined(const Record& r, const Operand& o, const Access& a) {
  // Loads and copies take whole blocks, so some of what they move may be nothing; what is computed may not.
  const bool moves = r.pipe == Pipe::MTE1 || r.pipe == Pipe::MTE2 || r.pipe == Pipe::MTE3 ||
                     r.op == Op::Copy || r.op == Op::Mmad || MovesLanes(r);
  if (moves && a.undefined < a.bytes) return;
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

std::string Core::Explain(const Record& wait) const {
  if (wait.op == Op::SyncAll) return "SyncAll waits for cores that never come";
  if (wait.op != Op::WaitFlag) return WaitName(wait) + " waits for a flag that no core will set";
  const auto sets = [&](const Record& r) {
    return r.op == Op::SetFlag && r.flag.event == wait.flag.event && r.flag.id == wait.flag.id;
  };
  std::string text = "pipe " + std::string(Name(wait.flag.to)) + " waits at " + PlaceName(wait.at) + " for " +
                     FlagName(wait.flag);
  for (const auto& queue : queue_) {
    for (const Waiting& w : queue) {
      if (!sets(w.record)) continue;
      return text + ", whose SetFlag at " + PlaceName(w.record.at) + " stands behind";
    }
  }
  return text + ", which no SetFlag raises";
}

void Core::ReportDeadlock(const Record& waiter) {
  // Follow who waits for whom; back at a pipe already seen it is a cycle.
  std::string chain;
  const Record* at = &waiter;
  uint32_t seen = 0;
  bool cycle = false;
  const Record* blamed = &waiter;
  while (at != nullptr) {
    chain += (chain.empty() ? "" : " -> ") + Explain(*at);
    if (at->op != Op::WaitFlag) break;
    if (seen >> static_cast<int>(at->pipe) & 1) {
      cycle = true;
      break;
    }
    seen |= 1u << static_cast<int>(at->pipe);
    blamed = at;
    const Record* next = nullptr;
    for (const auto& queue : queue_)
      for (const Waiting& w : queue)
        if (next == nullptr && w.record.op == Op::SetFlag && w.record.flag.event == at->flag.event &&
            w.record.flag.id == at->flag.id)
          next = &queue.front().record;
    at = next;
  }
  const bool unpaired = !cycle && blamed->op == Op::WaitFlag;
  if (!unpaired && let_through_) return;  // a consequence of the first
  const Record& where = unpaired ? *blamed : waiter;
  std::string message =
      unpaired ? WaitName(where) + " has no SetFlag: pipe " + Name(where.flag.to) + " would wait for ever"
               : "nothing moves any more: " + chain;
  Report(unpaired ? FindingKind::UnpairedFlag : FindingKind::Deadlock, std::move(message), where.pipe,
         where.at);
}

void Core::ReportLeftFlags() {
  for (int e = 0; e < kEvents; ++e) {
    for (int id = 0; id < kIds; ++id) {
      const Flag& flag = flags_[e][id];
      if (flag.ahead <= 0 || flag.internal) continue;
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
