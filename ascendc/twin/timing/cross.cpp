#include "timing/cross.h"

#include <algorithm>

namespace tilewright::twin::timing {

namespace {

int FlagOf(const Record& r) {
  if (r.op != Op::SyncAll) return r.cross.id;
  return r.cross.vector_only ? kSyncAllVector : kSyncAllMix;
}
uint8_t ModeOf(const Record& r) { return r.op == Op::SyncAll ? 0 : std::min<uint8_t>(r.cross.mode, 2); }

}  // namespace

std::vector<int> CrossTable::Group(int core, int first, int last) const {
  std::vector<int> cores;
  for (int place = first; place <= last; ++place)
    cores.push_back(core / kCoresOfGroup * kCoresOfGroup + place);
  return cores;
}

std::vector<int> CrossTable::All(bool vector) const {
  std::vector<int> cores;
  for (const uint32_t block : blocks_) {
    if (!vector || vectors_ == 0) cores.push_back(CoreId(static_cast<int>(block), 0));
    for (int v = 1; vector && v <= vectors_; ++v) cores.push_back(CoreId(static_cast<int>(block), v));
  }
  return cores;
}

std::vector<int> CrossTable::Setters(int core, uint8_t mode) const {
  const bool vector = core % kCoresOfGroup != 0;
  if (mode == 0) return All(vector);
  if (mode == 1) return vectors_ > 0 ? Group(core, 1, vectors_) : std::vector<int>{core};
  return vector ? Group(core, 1, vectors_) : std::vector<int>{core};
}

std::vector<int> CrossTable::Receivers(int core, uint8_t mode) const {
  if (mode != 2) return Setters(core, mode);
  return core % kCoresOfGroup != 0 ? Group(core, 0, 0) : Group(core, 1, vectors_);
}

void CrossTable::Publish(int core, const Record& flag, double cycle) {
  const int id = FlagOf(flag);
  const uint8_t mode = ModeOf(flag);
  const std::lock_guard<std::mutex> lock(mutex_);
  arrived_[mode][{core, id}].push_back(cycle);
  const std::vector<int> setters = Setters(core, mode);
  double latest = 0;
  for (const int setter : setters) {
    const auto& times = arrived_[mode][{setter, id}];
    if (times.empty()) return;
    latest = std::max(latest, times.front());
  }
  for (const int setter : setters) arrived_[mode][{setter, id}].pop_front();
  for (const int receiver : Receivers(core, mode)) raised_[{receiver, id}].push_back(latest);
}

double CrossTable::Answer(int core, const Record& flag) {
  const std::lock_guard<std::mutex> lock(mutex_);
  auto& times = raised_[{core, FlagOf(flag)}];
  if (times.empty()) return -1;
  const double at = times.front();
  times.pop_front();
  return at;
}

}  // namespace tilewright::twin::timing
