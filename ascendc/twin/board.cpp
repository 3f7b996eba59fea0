#include "board.h"

namespace tilewright::twin {

void Board::Shape(bool mixed, int vectors) {
  const std::lock_guard<std::mutex> lock(mutex_);
  mixed_ = mixed;
  vectors_ = vectors;
}

int Board::Vectors() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return vectors_;
}

// Everybody whose flag is needed before the counters go up.
std::vector<int> Board::Setters(const Setting& s) const {
  const int block = s.core / kCoresOfGroup;
  std::vector<int> out;
  const auto vectors_of = [&](int b) {
    for (int v = 1; v <= vectors_; ++v) out.push_back(CoreId(b, v));
  };
  if (s.id == kSyncAllMix || s.id == kSyncAllVector || s.mode == 0) {
    const uint32_t blocks = s.cores != 0 ? std::min(s.cores, blocks_) : blocks_;
    const bool everyone = s.id == kSyncAllMix;
    if (s.cores != 0 && mixed_) {  // counted in vector cores
      for (uint32_t i = 0; i < s.cores; ++i)
        out.push_back(CoreId(static_cast<int>(i) / vectors_, 1 + static_cast<int>(i) % vectors_));
      return out;
    }
    for (uint32_t b = 0; b < blocks; ++b) {
      if (!mixed_ || everyone || IsCube(s.core)) out.push_back(CoreId(static_cast<int>(b), 0));
      if (mixed_ && (everyone || !IsCube(s.core))) vectors_of(static_cast<int>(b));
    }
    return out;
  }
  if (s.mode == 2 && IsCube(s.core)) return {s.core};
  vectors_of(block);
  return out;
}

std::vector<int> Board::Receivers(const Setting& s) const {
  if (s.mode != 2 || s.id >= kCrossIds) return Setters(s);
  const int block = s.core / kCoresOfGroup;
  if (!IsCube(s.core)) return {CoreId(block, 0)};
  std::vector<int> out;
  for (int v = 1; v <= vectors_; ++v) out.push_back(CoreId(block, v));
  return out;
}

std::vector<int> Board::Set(const Setting& s, RemoteStore& store) {
  const std::lock_guard<std::mutex> lock(mutex_);
  arrived_[{s.mode, {s.core, s.id}}].push_back({s.known, s.at});
  const std::vector<int> setters = Setters(s);
  for (const int core : setters)
    if (arrived_[{s.mode, {core, s.id}}].empty()) return {};
  const Remote* known = nullptr;
  for (const int core : setters) {
    auto& queue = arrived_[{s.mode, {core, s.id}}];
    known = store.Merge(known, queue.front().known);
    queue.pop_front();
  }
  std::vector<int> overflowing;
  for (const int core : Receivers(s)) {
    auto& queue = raised_[{core, s.id}];
    queue.push_back({known, s.at});
    if (queue.size() > kMostRaised) overflowing.push_back(core);
  }
  Changed();
  return overflowing;
}

bool Board::TryWait(int core, int id, const Remote** known) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = raised_.find({core, id});
  if (found == raised_.end() || found->second.empty()) return false;
  *known = found->second.front().known;
  found->second.pop_front();
  return true;
}

bool Board::Raised(int core, int id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = raised_.find({core, id});
  return found != raised_.end() && !found->second.empty();
}

void Board::Signal(uint32_t key, const Remote* known, Place at) {
  const std::lock_guard<std::mutex> lock(mutex_);
  raised_[{kNoCore, static_cast<int>(key)}].push_back({known, at});
  Changed();
}

void Board::Force(int core, int id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  raised_[{core, id}].push_back({nullptr, {"", 0}});
}

std::vector<Board::Left> Board::Leftovers() {
  std::vector<Left> out;
  for (const auto& [key, queue] : raised_)
    if (!queue.empty() && key.second < kCrossIds)
      out.push_back({key.first, key.second, queue.front().at, false});
  for (const auto& [key, queue] : arrived_)
    if (!queue.empty() && key.second.second < kCrossIds)
      out.push_back({key.second.first, key.second.second, queue.front().at, true});
  return out;
}

void Board::Touch() {
  const std::lock_guard<std::mutex> lock(mutex_);
  Changed();
}

// Whoever waits has something to look at, even before its thread gets to run.
void Board::Changed() {
  ++version_;
  waiting_ = 0;
  changed_.notify_all();
}

void Board::GiveUp() {
  ++deadlocks_;
  waiting_ = 0;
  changed_.notify_all();
}

uint64_t Board::Version() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return version_;
}

bool Board::WaitForChange(uint64_t seen) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (version_ != seen) return true;
  if (++waiting_ == threads_) {
    GiveUp();
    return false;
  }
  const uint64_t deadlocks = deadlocks_;
  changed_.wait(lock, [&] { return version_ != seen || deadlocks_ != deadlocks; });
  return version_ != seen;
}

void Board::Enter() {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++threads_;
}

void Board::Leave() {
  const std::lock_guard<std::mutex> lock(mutex_);
  --threads_;
  if (threads_ > 0 && waiting_ == threads_) GiveUp();
}

}  // namespace tilewright::twin
