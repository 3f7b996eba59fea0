// Global memory is written by all cores: who touched what, and what nothing orders.
#pragma once

#include <algorithm>
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

// How many accesses the cores of a launch may log, so that the largest ones do not fill the host's memory.
class GmRoom {
 public:
  static constexpr uint64_t kUsual = uint64_t{1} << 22;  // about 1 GB
  explicit GmRoom(uint64_t accesses) : left_(static_cast<int64_t>(accesses)) {}
  bool Take() { return left_.fetch_sub(1, std::memory_order_relaxed) > 0; }
  uint64_t refused() const { return static_cast<uint64_t>(std::max<int64_t>(0, -left_.load())); }

 private:
  std::atomic<int64_t> left_;
};

// One for each core: no locking where instructions are issued.
class GmLog {
 public:
  void Add(const GmAccess& access, GmRoom& room) {
    if (room.Take()) accesses_.push_back(access);
  }
  std::vector<GmAccess>& accesses() { return accesses_; }

 private:
  std::vector<GmAccess> accesses_;
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
