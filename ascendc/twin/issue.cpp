// From program order to the order in which pipes get going: queues, flags, barriers, and waiting for other
// cores.
#include "machine.h"

namespace tilewright::twin {

void Core::Issue(Record& record) {
  const bool signals = record.op == Op::CrossSet && record.cross.mode == 3;
  if (record.op == Op::SyncAll || signals || (record.op == Op::Barrier && record.barrier.pipe == Pipe::ALL)) {
    AwaitEmpty();
    Go(record, order_.Scalar());
    return;
  }
  auto& queue = queue_[static_cast<int>(record.pipe)];
  if (queue.empty() && CanGo(record)) {
    Go(record, order_.Scalar());
    if (queued_ > 0) Pump();
    return;
  }
  if (record.pipe == Pipe::S) {  // the scalar unit itself waits
    while (!CanGo(record))
      if (!Pump()) AwaitOthers(&record);
    Go(record, order_.Scalar());
    if (queued_ > 0) Pump();
    return;
  }
  queue.push_back({record, order_.Scalar()});
  ++queued_;
  while (queue.size() > kQueueDepth)
    if (!Pump()) AwaitOthers(nullptr);
}

bool Core::CanGo(const Record& record) {
  if (record.op == Op::WaitFlag) return !flags_[record.flag.event][record.flag.id].raised.empty();
  if (record.op == Op::CrossWait) {
    const auto [core, id] = FlagOf(id_, record);
    return machine_.board->Raised(core, id);
  }
  return UnitWait(record) == nullptr;
}

// With unit flags a tile of L0C goes from Mmad to Fixpipe and back: what the other pipe has yet to do on it,
// held up by a wait of its own, comes first.
const Record* Core::UnitWait(const Record& record) const {
  const auto tile = [](const Record& r) -> const Operand* {
    if (r.op == Op::Mmad) return r.mmad.unit_flag != 0 ? &r.operand[0] : nullptr;
    return r.op == Op::Fixpipe && r.fix.unit_flag != 0 ? &r.operand[1] : nullptr;
  };
  const Operand* own = tile(record);
  if (own == nullptr) return nullptr;
  const Extent e = ExtentOf(*own);
  for (const Waiting& w : queue_[static_cast<int>(record.op == Op::Mmad ? Pipe::FIX : Pipe::M)]) {
    if (w.record.seq > record.seq) return nullptr;
    const Operand* other = tile(w.record);
    if (other == nullptr) continue;
    const Extent o = ExtentOf(*other);
    if (o.begin < e.end && e.begin < o.end) return &w.record;
  }
  return nullptr;
}

// What the front of a queue waits for in the end: a flag.
const Record& Core::Waiter(const Record& front) const {
  const Record* at = &front;
  while (const Record* other = UnitWait(*at)) at = &queue_[static_cast<int>(other->pipe)].front().record;
  return *at;
}

void Core::Go(Record& record, const Clock& issued) {
  order_.Join(record.pipe == Pipe::ALL ? Pipe::S : record.pipe, issued);
  switch (record.op) {
    case Op::SetFlag:
    case Op::WaitFlag:
      return GoFlag(record);
    case Op::Barrier:
      return order_.Barrier(record.barrier.pipe);
    case Op::CrossSet:
    case Op::CrossWait:
    case Op::SyncAll:
      return GoCross(record);
    default:
      return GoMemory(record);
  }
}

void Core::GoFlag(const Record& record) {
  auto& raised = flags_[record.flag.event][record.flag.id].raised;
  if (record.op == Op::SetFlag) {
    int& owed = flags_[record.flag.event][record.flag.id].owed;
    // In the program a WaitFlag lies between the two, but its pipe is behind, and nothing makes this one
    // wait.
    if (!raised.empty())
      Report(FindingKind::RepeatedFlag,
             "SetFlag<" + FlagName(record.flag) + "> may come before pipe " + Name(record.flag.to) +
                 " has taken the one before: its WaitFlag is issued, and nothing orders this after it",
             record.pipe, record.at);
    if (owed > 0)
      --owed;  // its wait was let through
    else
      raised.push_back(order_.AllOf(record.flag.from));
    return;
  }
  order_.Join(record.flag.to, raised.front());
  raised.erase(raised.begin());
}

const Remote* Core::Publish(const Clock& clock) {
  const size_t half = machine_.board->Cores() * kPipes;
  Remote known(2 * half);
  if (clock.remote != nullptr) known = *clock.remote;
  const auto own = known.begin() + static_cast<std::ptrdiff_t>(id_) * kPipes;
  std::copy(clock.done.begin(), clock.done.end(), own);
  std::copy(order_.issued().begin(), order_.issued().end(), own + static_cast<std::ptrdiff_t>(half));
  return machine_.store->Keep(std::move(known));
}

// What a flag from other cores tells: of them, and of what this core itself had done when it set its own.
Clock Core::Told(const Remote* known) const {
  Clock clock;
  clock.remote = known;
  if (known != nullptr)
    std::copy_n(known->begin() + static_cast<std::ptrdiff_t>(id_) * kPipes, kPipes, clock.done.begin());
  return clock;
}

void Core::GoCross(const Record& record) {
  const CrossParams& c = record.cross;
  const Remote* known = nullptr;
  if (record.op == Op::CrossWait) {
    const auto [core, id] = FlagOf(id_, record);
    machine_.board->TryWait(core, id, &known);
    order_.Join(record.pipe, Told(known));
    if (clock_ != nullptr) clock_->Resume();
    return;
  }
  if (c.mode == 3) {
    order_.Barrier(Pipe::ALL);
    if (deferred_ != nullptr) deferred_->Complete(order_.Scalar());
    return machine_.board->Signal(c.key, Publish(order_.Scalar()), record.at);
  }
  const bool meeting = record.op == Op::SyncAll;
  if (meeting) order_.Barrier(Pipe::ALL);
  const Clock done = meeting ? order_.Scalar() : order_.AllOf(c.pipe);
  if (deferred_ != nullptr) deferred_->Complete(done);
  const int id = FlagOf(id_, record).id;
  const auto overflowing =
      machine_.board->Set({id_, c.mode, id, c.cores, record.at, Publish(done)}, *machine_.store);
  if (!overflowing.empty() && !meeting)
    Report(FindingKind::CrossFlag,
           "CrossCoreSetFlag raises flag " + std::to_string(c.id) +
               " past 15 without a wait: the counter overflows",
           record.pipe, record.at);
  if (!meeting) return;
  while (!machine_.board->TryWait(id_, id, &known)) AwaitOthers(&record);
  order_.Join(Pipe::S, Told(known));
  order_.Barrier(Pipe::ALL);
  if (clock_ != nullptr) clock_->Resume();
}

void Core::GoMemory(Record& record) {
  if (record.operands == 0 && record.op != Op::ReadState) return;
  const uint32_t index = order_.Next(record.pipe);
  Clock& clock = order_.Of(record.pipe);
  starts_after_ = clock;
  if (shadow_ != nullptr) {
    sites_[static_cast<int>(record.pipe)].push_back(SiteOf(record));
    started_[static_cast<int>(record.pipe)].push_back(clock);
    // Where memory decides what is read, it can be asked as long as everything before has run.
    if (record.op == Op::Vector && deferred_ == nullptr && !machine_.options.skip_data)
      ResolveVector(*this, record);
    if (record.op == Op::Mmad && record.mmad.init == CInit::Accumulate) {  // its C is a source too
      Record source = record;
      source.operand[0].write = false;
      CheckOperand(source, 0, index, clock);
    }
    // What it reads is looked at before what it writes: source and destination may be one.
    for (const bool write : {false, true})
      for (int i = 0; i < record.operands; ++i)
        if (record.operand[i].write == write) CheckOperand(record, i, index, clock);
    started_[static_cast<int>(record.pipe)].back() = clock;
  }
  Perform(record, index, starts_after_);
}

void Core::Perform(Record& record, uint32_t index, const Clock& clock) {
  const bool asked = record.op == Op::ScalarGet || record.op == Op::ReadState;
  if (machine_.options.skip_data) {
    if (asked) Execute(*this, record);
  } else if (deferred_ == nullptr) {
    Execute(*this, record);
  } else if (record.pipe == Pipe::S) {
    deferred_->Now(record, clock, clock_->Now());
  } else {
    deferred_->Add(record, index, clock, clock_->EndOf(record.seq));
  }
}

// Everything at the head of a queue that can go; true where something did.
bool Core::Pump() {
  bool moved = false;
  for (bool again = queued_ > 0; again;) {
    again = false;
    for (auto& queue : queue_) {
      while (!queue.empty() && CanGo(queue.front().record)) {
        Waiting head = queue.front();
        queue.pop_front();
        --queued_;
        Go(head.record, head.issued);
        moved = again = true;
      }
    }
  }
  return moved;
}

void Core::AwaitEmpty() {
  while (queued_ > 0)
    if (!Pump()) AwaitOthers(nullptr);
}

void Core::AwaitOthers(const Record* scalar) {
  if (deferred_ != nullptr) deferred_->All();
  const auto crosses = [](const Record& r) { return r.op == Op::CrossWait || r.op == Op::SyncAll; };
  const Record* waiter = scalar;
  bool full = false;
  for (const auto& queue : queue_) {
    if (queue.empty()) continue;
    const Record& front = Waiter(queue.front().record);
    if (waiter == nullptr || (!crosses(*waiter) && crosses(front))) waiter = &front;
    full = full || queue.size() > kQueueDepth;
  }
  if (!crosses(*waiter)) return BreakHang(*waiter, full);
  const auto [on, flag] = FlagOf(id_, *waiter);
  Board& board = *machine_.board;
  board.Park(id_, {on, flag, waiter->at, waiter->seq, order_.issued()});
  const bool again = block_on_ && block_on_();
  if (!again) {
    Report(FindingKind::Deadlock, "nothing moves any more: " + board.Explain(id_), waiter->pipe, waiter->at);
    board.Force(on, flag, *machine_.store);
  }
  board.Unpark(id_);
}

}  // namespace tilewright::twin
