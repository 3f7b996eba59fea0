// Flags between cores in simulated time: what board.h does in the order of execution.
#pragma once

#include <deque>
#include <map>
#include <mutex>
#include <vector>

#include "timing/timeline.h"

namespace tilewright::twin::timing {

class CrossTable : public CrossTimes {
 public:
  // Cores of the launch that run, and vector cores in a group (0: the kernel is not mixed).
  CrossTable(std::vector<uint32_t> blocks, int vectors) : blocks_(std::move(blocks)), vectors_(vectors) {}

  void Shape(int vectors) {
    const std::lock_guard<std::mutex> lock(mutex_);
    vectors_ = vectors;
  }
  void Publish(int core, const Record& flag, double cycle) override;
  double Answer(int core, const Record& flag) override;

 private:
  // The cores whose flags make one event of mode `mode` as `core` sets, and those it reaches.
  std::vector<int> Setters(int core, uint8_t mode) const;
  std::vector<int> Receivers(int core, uint8_t mode) const;
  std::vector<int> Group(int core, int first, int last) const;
  std::vector<int> All(bool vector) const;

  using Key = std::pair<int, int>;  // core, flag
  const std::vector<uint32_t> blocks_;
  int vectors_;
  std::mutex mutex_;
  std::map<Key, std::deque<double>> arrived_[3], raised_;  // by mode; by who waits
};

}  // namespace tilewright::twin::timing
