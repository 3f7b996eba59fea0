#include "schedule.h"

#include <algorithm>
#include <random>

#include "machine.h"

namespace tilewright::twin {

namespace {

bool Overlap(const Record& a, const Record& b, Hazard* hazard, Mem* mem) {
  for (int i = 0; i < a.operands; ++i) {
    for (int j = 0; j < b.operands; ++j) {
      const Operand &x = a.operand[i], &y = b.operand[j];
      if (x.mem != y.mem || !(x.write || y.write)) continue;
      const Extent p = ExtentOf(x), q = ExtentOf(y);
      if (p.begin >= q.end || q.begin >= p.end) continue;
      *hazard = !x.write ? Hazard::War : y.write ? Hazard::Waw : Hazard::Raw;
      *mem = x.mem;
      return true;
    }
  }
  return false;
}

// Registers that vector instructions leave results in, and that they or the scalar unit read: 0 none. Their
// order is that of issue.
enum Register : uint8_t { kNoRegister, kReduced, kSummed, kKept, kMerged, kMask };

Register RegisterOf(VecOp op) {
  switch (op) {
    case VecOp::WholeReduceMax:
    case VecOp::WholeReduceMin:
    case VecOp::ReduceMax:
    case VecOp::ReduceMin:
      return kReduced;
    case VecOp::ReduceSum:
      return kSummed;
    case VecOp::GatherMask:
      return kKept;
    case VecOp::MrgSort:
      return kMerged;
    case VecOp::CompareToMask:
    case VecOp::SetCmpMask:
    case VecOp::GetCmpMask:
    case VecOp::Select:
      return kMask;
    default:
      return kNoRegister;
  }
}

Register RegisterOf(StateWord word) {
  switch (word) {
    case StateWord::AccValue:
      return kSummed;
    case StateWord::ReduceValue:
    case StateWord::ReduceIndex:
      return kReduced;
    case StateWord::RsvdCount:
      return kKept;
    case StateWord::CmpMask0:
    case StateWord::CmpMask1:
      return kMask;
    default:
      return kMerged;
  }
}

Register RegisterOf(const Record& r) {
  if (r.op == Op::Vector) return RegisterOf(r.vec.op);
  return r.op == Op::ReadState ? RegisterOf(static_cast<StateWord>(r.state.what)) : kNoRegister;
}

class Random : public Deferred {
 public:
  // Windows differ from run to run: a wide one keeps what is unordered apart for long.
  Random(Core& core, uint64_t seed) : Deferred(core, seed % 5 == 0 ? 4 : 48), random_(seed) {}

 protected:
  size_t Choose(const std::vector<size_t>& ready) override {
    // Often the youngest: that is what a missing wait permits and program order hides.
    if (random_() % 3 != 0) return ready.size() - 1;
    return random_() % ready.size();
  }
  bool Wants(const Held&, double) override { return random_() % 4 == 0; }

 private:
  std::mt19937_64 random_;
};

class Timeline : public Deferred {
 public:
  explicit Timeline(Core& core) : Deferred(core, 512) {}

 protected:
  size_t Choose(const std::vector<size_t>& ready) override {
    size_t best = 0;
    for (size_t i = 1; i < ready.size(); ++i)
      if (held_[ready[i]].end < held_[ready[best]].end) best = i;
    return best;
  }
  bool Wants(const Held& held, double now) override { return held.end <= now; }
};

}  // namespace

bool Deferred::MustPrecede(const Held& first, const Held& second) const {
  if (second.clock.Knows(first.record.pipe, first.index)) return true;
  Hazard hazard;
  Mem mem;
  const Register left = RegisterOf(first.record);
  if (left != kNoRegister && left == RegisterOf(second.record)) return true;
  if (!Overlap(first.record, second.record, &hazard, &mem)) return false;
  return HardwareOrders(hazard, mem, first.record.pipe, SiteOf(first.record), second.record.pipe,
                        SiteOf(second.record));
}

bool Deferred::Ready(size_t i) const {
  for (size_t j = 0; j < i; ++j)
    if (MustPrecede(held_[j], held_[i])) return false;
  return true;
}

void Deferred::Run(size_t i) {
  Held held = held_[i];
  held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(i));
  Execute(core_, held.record);
}

void Deferred::RunOne() {
  ready_.clear();
  for (size_t i = 0; i < held_.size(); ++i)
    if (Ready(i)) ready_.push_back(i);
  Run(ready_[Choose(ready_)]);
}

void Deferred::Add(const Record& record, uint32_t index, const Clock& clock, double end) {
  held_.push_back({record, index, clock, end});
  while (held_.size() > window_) RunOne();
}

void Deferred::Now(Record& record, const Clock& clock, double now) {
  const Held scalar{record, 0, clock, now};
  for (bool again = true; again;) {
    again = false;
    for (size_t i = 0; i < held_.size() && !again; ++i) {
      if (!Ready(i) || !(MustPrecede(held_[i], scalar) || Wants(held_[i], now))) continue;
      Run(i);
      again = true;
    }
    if (again) continue;
    // What must precede may itself stand behind others that nothing else wants yet.
    for (size_t i = 0; i < held_.size() && !again; ++i) {
      if (!MustPrecede(held_[i], scalar)) continue;
      size_t first = i;
      for (size_t j = i; j-- > 0;)
        if (MustPrecede(held_[j], held_[first])) first = j;
      Run(first);
      again = true;
    }
  }
  Execute(core_, record);
}

void Deferred::Complete(const Clock& clock) {
  for (size_t i = 0; i < held_.size();) {
    if (!clock.Knows(held_[i].record.pipe, held_[i].index)) {
      ++i;
      continue;
    }
    size_t first = i;
    for (size_t j = i; j-- > 0;)
      if (MustPrecede(held_[j], held_[first])) first = j;
    Run(first);
    i = 0;
  }
}

void Deferred::All() {
  while (!held_.empty()) RunOne();
}

std::unique_ptr<Deferred> MakeRandom(Core& core, uint64_t seed) {
  return std::make_unique<Random>(core, seed);
}
std::unique_ptr<Deferred> MakeTimeline(Core& core) { return std::make_unique<Timeline>(core); }

}  // namespace tilewright::twin
