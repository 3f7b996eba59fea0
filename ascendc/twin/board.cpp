#include "board.h"

#include <algorithm>
#include <tuple>

namespace tilewright::twin {

Board::Board(uint32_t blocks) : blocks_(blocks), groups_(AllBlocks(blocks)) {}

void Board::Shape(int vectors) {
  const std::lock_guard<std::mutex> lock(mutex_);
  groups_.Shape(vectors);
}

int Board::Vectors() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return groups_.vectors();
}

std::vector<int> Board::Set(const Setting& s, RemoteStore& store) {
  const std::lock_guard<std::mutex> lock(mutex_);
  arrived_[{s.mode, {s.core, s.id}}].push_back({s.known, s.at});
  const std::vector<int> setters = groups_.Setters(s.core, s.mode, s.id, s.cores);
  for (const int core : setters)
    if (arrived_[{s.mode, {core, s.id}}].empty()) return {};
  const Remote* known = nullptr;
  for (const int core : setters) {
    auto& queue = arrived_[{s.mode, {core, s.id}}];
    known = store.Merge(known, queue.front().known);
    queue.pop_front();
  }
  std::vector<int> overflowing;
  for (const int core : groups_.Receivers(s.core, s.mode, s.id, s.cores)) {
    auto& queue = raised_[{core, s.id}];
    queue.push_back({known, s.at});
    ++ever_raised_[{core, s.id}];
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
  ++ever_raised_[{kNoCore, static_cast<int>(key)}];
  Changed();
}

void Board::Force(int core, int id, RemoteStore& store) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const size_t half = Cores() * kPipes;
  Remote known(2 * half);
  const auto add = [&](int of, const std::array<uint32_t, kPipes>& issued) {
    for (const size_t at : {size_t{0}, half})
      std::copy(issued.begin(), issued.end(),
                known.begin() + static_cast<std::ptrdiff_t>(at + static_cast<size_t>(of) * kPipes));
  };
  for (const auto& [of, parked] : parked_) add(of, parked.issued);
  for (const auto& [of, issued] : ended_) add(of, issued);
  raised_[{core, id}].push_back({store.Keep(std::move(known)), {"", 0}});
  Changed();
}

void Board::Park(int core, const Parked& parked) {
  const std::lock_guard<std::mutex> lock(mutex_);
  parked_[core] = parked;
}

void Board::Unpark(int core) {
  const std::lock_guard<std::mutex> lock(mutex_);
  parked_.erase(core);
}

void Board::End(int core, const std::array<uint32_t, kPipes>& issued) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ended_[core] = issued;
}

bool Board::TakeVictim(int core) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (victim_ != core) return false;
  victim_ = -1;
  return true;
}

std::string Board::NameOf(int core) const {
  const std::string block = std::to_string(core / kCoresOfGroup);
  const int place = core % kCoresOfGroup;
  if (!groups_.mixed()) return "block " + block;
  if (place == 0) return "the cube core of block " + block;
  return "vector core " + std::to_string(place - 1) + " of block " + block;
}

// Whose setting of a flag a core waits for; `text` tells who has set it already.
std::vector<int> Board::Missing(int core, int id, std::string& text) {
  std::vector<int> missing;
  for (const auto& [key, queue] : arrived_) {
    const auto& [mode, setter] = key;
    if (setter.second != id || queue.empty()) continue;
    const Setting s{setter.first, static_cast<uint8_t>(mode), id, 0, queue.front().at, nullptr};
    const std::vector<int> receivers = groups_.Receivers(s.core, s.mode, s.id, s.cores);
    if (std::find(receivers.begin(), receivers.end(), core) == receivers.end()) continue;
    for (const int other : groups_.Setters(s.core, s.mode, s.id, s.cores)) {
      const auto found = arrived_.find({mode, {other, id}});
      if (found == arrived_.end() || found->second.empty()) missing.push_back(other);
    }
    if (setter.first != core)
      text = ", which " + NameOf(setter.first) + " has set at " + queue.front().at.file + ":" +
             std::to_string(queue.front().at.line) + " and";
    if (!missing.empty()) return missing;
  }
  if (!groups_.mixed()) return missing;
  if (!groups_.IsCube(core)) return {core - core % kCoresOfGroup};
  for (int v = 1; v <= groups_.vectors(); ++v) missing.push_back(core + v);
  return missing;
}

std::string Board::Explain(int core) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::string text;
  std::vector<int> seen;
  for (;;) {
    if (std::find(seen.begin(), seen.end(), core) != seen.end()) return text + NameOf(core) + " again";
    seen.push_back(core);
    const auto found = parked_.find(core);
    if (found == parked_.end())
      return text + NameOf(core) + (ended_.count(core) != 0 ? " has ended" : " waits for a core to run on");
    const Parked& p = found->second;
    text += NameOf(core) + " waits at " + p.at.file + ":" + std::to_string(p.at.line);
    if (p.on == kNoCore) return text + " for a signal of another block, which no core sends";
    text += p.id >= kCrossIds ? " in SyncAll for others" : " for flag " + std::to_string(p.id);
    std::string which;
    const std::vector<int> missing = Missing(core, p.id, which);
    if (missing.empty()) return text + ", which no core sets";
    text += (which.empty() ? ", which " : which + " ") + NameOf(missing.front()) + " does not set -> ";
    core = missing.front();
  }
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

uint64_t Board::Version() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return version_;
}

// Nobody waits in vain any more, however long it takes the threads to wake up.
void Board::Changed() {
  ++version_;
  waiting_ = 0;
  changed_.notify_all();
}

bool Board::WaitForChange(uint64_t seen) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (version_ != seen) return true;
  if (++waiting_ == threads_) {
    Deadlock();
    return false;
  }
  const uint64_t deadlocks = deadlocks_;
  changed_.wait(lock, [&] { return version_ != seen || deadlocks_ != deadlocks; });
  return version_ != seen;
}

// The core to report it is the same whatever the threads: the one whose flag was raised least often, of those
// the one that has come least far.
void Board::Deadlock() {
  const auto rank = [&](int core, const Parked& p) {
    return std::tuple(ever_raised_[{p.on, p.id}], p.seq, core);
  };
  victim_ = -1;
  for (const auto& [core, parked] : parked_)
    if (victim_ < 0 || rank(core, parked) < rank(victim_, parked_.at(victim_))) victim_ = core;
  ++deadlocks_;
  waiting_ = 0;
  changed_.notify_all();
}

void Board::Enter() {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++threads_;
}

void Board::Leave() {
  const std::lock_guard<std::mutex> lock(mutex_);
  --threads_;
  if (threads_ > 0 && waiting_ == threads_) Deadlock();
}

}  // namespace tilewright::twin
