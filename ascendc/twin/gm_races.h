// Global memory is written by all cores: who touched what, and what nothing orders.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "hazards.h"
#include "order.h"
#include "twin/record.h"

namespace tilewright::twin {

struct Finding;
struct GmBuffer;

struct GmAccess {
  uint64_t seq;  // program order of its core
  int core;
  Pipe pipe;
  uint32_t index;
  Clock clock;
  Operand operand;
  Site site;
  Atomic atomic = Atomic::None;
  bool cached = false;  // a write that stays in the data cache
};

// One for each core: no locking where instructions are issued.
class GmLog {
 public:
  void Add(const GmAccess& access) {
    if (accesses_.size() < kMost)
      accesses_.push_back(access);
    else
      ++dropped_;
  }
  std::vector<GmAccess>& accesses() { return accesses_; }
  uint64_t dropped() const { return dropped_; }

 private:
  static constexpr size_t kMost = size_t{1} << 22;
  std::vector<GmAccess> accesses_;
  uint64_t dropped_ = 0;
};

struct GmRace {
  GmAccess before, after;
  Hazard hazard;
  uint64_t begin, end;
  bool stale = false;  // ordered, but what was written is still in the writer's data cache
};

// Pairs that touch the same byte, one of them writing, with nothing that orders them; one for each pair of
// lines. And reads of what a scalar unit wrote and did not clean out of its data cache.
std::vector<GmRace> FindGmRaces(const std::vector<GmAccess>& accesses, const std::vector<GmBuffer>& buffers);

}  // namespace tilewright::twin
