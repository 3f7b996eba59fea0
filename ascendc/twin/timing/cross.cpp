#include "timing/cross.h"

#include <algorithm>

namespace tilewright::twin::timing {

void CrossTable::Publish(int core, const Record& flag, double cycle) {
  const auto [where, id] = FlagOf(core, flag);
  const uint8_t mode = std::min<uint8_t>(flag.cross.mode, 2);  // what is beyond is a finding
  const std::lock_guard<std::mutex> lock(mutex_);
  if (where == kNoCore) return raised_[{where, id}].push_back(cycle);
  arrived_[mode][{core, id}].push_back(cycle);
  const std::vector<int> setters = groups_.Setters(core, mode, id, flag.cross.cores);
  double latest = 0;
  for (const int setter : setters) {
    const auto& times = arrived_[mode][{setter, id}];
    if (times.empty()) return;
    latest = std::max(latest, times.front());
  }
  for (const int setter : setters) arrived_[mode][{setter, id}].pop_front();
  for (const int receiver : groups_.Receivers(core, mode, id, flag.cross.cores))
    raised_[{receiver, id}].push_back(latest);
}

double CrossTable::Answer(int core, const Record& flag) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto [where, id] = FlagOf(core, flag);
  auto& times = raised_[{where, id}];
  if (times.empty()) return -1;
  const double at = times.front();
  times.pop_front();
  return at;
}

}  // namespace tilewright::twin::timing
