#include "clock.h"

#include "timing/cross.h"
#include "timing/gm.h"
#include "timing/timeline.h"

namespace tilewright::twin {

struct Clocks::Parts {
  const Machine& machine;
  timing::Costs costs{};
  timing::Sharing sharing{};
  timing::CrossTable cross;
  explicit Parts(const Machine& m) : machine(m), cross(AllBlocks(m.block_dim), 0) {
    sharing.cores = m.block_dim;
  }
};

Clocks::Clocks(const Machine& machine) : parts_(std::make_unique<Parts>(machine)) {}
Clocks::~Clocks() = default;
void Clocks::Shape(int vectors) { parts_->cross.Shape(vectors); }

struct CoreClock::Parts {
  timing::GmModel gm;
  timing::Timeline timeline;
  Parts(Clocks::Parts& shared, int core)
      : gm(shared.machine.buffers, shared.costs, shared.sharing),
        timeline(shared.costs, gm, core, &shared.cross) {}
};

CoreClock::CoreClock(Clocks& clocks, int core, bool keep)
    : parts_(std::make_unique<Parts>(*clocks.parts_, core)), keep_(keep) {
  if (keep) parts_->timeline.KeepResolved();
}
CoreClock::~CoreClock() = default;

void CoreClock::Push(const Record& record) {
  parts_->timeline.Push(record);
  Take();
}

void CoreClock::Take() {
  if (!keep_) return;
  for (const timing::Resolved& r : parts_->timeline.resolved()) ends_[r.seq] = r.end;
  parts_->timeline.ClearResolved();
}

void CoreClock::Resume() {
  parts_->timeline.Resume();
  Take();
}

double CoreClock::EndOf(uint64_t seq) {
  const auto found = ends_.find(seq);
  if (found == ends_.end()) return Now();
  const double end = found->second;
  ends_.erase(found);
  return end;
}

double CoreClock::Now() const { return parts_->timeline.now(); }
double CoreClock::Finish() { return parts_->timeline.Finish().end; }

}  // namespace tilewright::twin
