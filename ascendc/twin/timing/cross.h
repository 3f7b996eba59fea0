// Flags between cores in simulated time: what board.h does in the order of execution.
#pragma once

#include <deque>
#include <map>
#include <mutex>
#include <vector>

#include "groups.h"
#include "timing/timeline.h"

namespace tilewright::twin::timing {

class CrossTable : public CrossTimes {
 public:
  // Cores of the launch that run, and vector cores in a group (0: the kernel is not mixed).
  CrossTable(std::vector<uint32_t> blocks, int vectors) : groups_(std::move(blocks)) {
    groups_.Shape(vectors);
  }

  void Shape(int vectors) {
    const std::lock_guard<std::mutex> lock(mutex_);
    groups_.Shape(vectors);
  }
  void Publish(int core, const Record& flag, double cycle) override;
  double Answer(int core, const Record& flag) override;

 private:
  using Key = std::pair<int, int>;  // core, flag
  Groups groups_;
  std::mutex mutex_;
  std::map<Key, std::deque<double>> arrived_[3], raised_;  // by mode; by who waits
};

}  // namespace tilewright::twin::timing
