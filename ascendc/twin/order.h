// Which instructions are known to have completed before others start: vector clocks over the pipes of a core,
// and over other cores where cross-core flags were waited for.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

#include "twin/record.h"

namespace tilewright::twin {

// What is known of every core: how many instructions of each of its pipes have completed, and, in a second
// half, how many had been given to the pipes. The latter orders nothing, but tells which of two accesses was
// meant to come first.
using Remote = std::vector<uint32_t>;

// Keeps every Remote of a launch; clocks only point at them.
class RemoteStore {
 public:
  const Remote* Keep(Remote remote) {
    const std::lock_guard<std::mutex> lock(mutex_);
    kept_.push_back(std::move(remote));
    return &kept_.back();
  }
  const Remote* Merge(const Remote* a, const Remote* b);

 private:
  std::mutex mutex_;
  std::deque<Remote> kept_;
};

// `done[p]`: how many instructions of pipe p of this core have completed for sure.
struct Clock {
  std::array<uint32_t, kPipes> done{};
  const Remote* remote = nullptr;

  void Join(const Clock& other, RemoteStore& store) {
    for (int p = 0; p < kPipes; ++p) done[p] = std::max(done[p], other.done[p]);
    if (other.remote != remote) remote = store.Merge(remote, other.remote);
  }
  bool Knows(Pipe pipe, uint32_t index) const { return index < done[static_cast<int>(pipe)]; }
};

// The order that a core's own synchronisation makes. Indices count instructions of a pipe that touch memory.
class Order {
 public:
  explicit Order(RemoteStore& store) : store_(&store) {}

  void Reset() {
    pipe_.fill({});
    issued_.fill(0);
  }
  // What the scalar unit knows; every instruction it issues from now on starts after that.
  const Clock& Scalar() const { return Of(Pipe::S); }
  const Clock& Of(Pipe p) const { return pipe_[static_cast<int>(p)]; }
  Clock& Of(Pipe p) { return pipe_[static_cast<int>(p)]; }

  // A memory instruction on `p`: its index.
  uint32_t Next(Pipe p) { return issued_[static_cast<int>(p)]++; }
  // What is known once everything before now on `p` has completed.
  Clock AllOf(Pipe p) const {
    Clock c = Of(p);
    c.done[static_cast<int>(p)] = issued_[static_cast<int>(p)];
    return c;
  }
  void Join(Pipe p, const Clock& known) { Of(p).Join(known, *store_); }
  void Barrier(Pipe p) {
    if (p != Pipe::ALL) {
      Of(p).done[static_cast<int>(p)] = issued_[static_cast<int>(p)];
      return;
    }
    Clock all;
    for (int q = 0; q < kPipes; ++q) all.Join(AllOf(static_cast<Pipe>(q)), *store_);
    pipe_.fill(all);
  }
  // How many memory instructions each pipe has been given.
  const std::array<uint32_t, kPipes>& issued() const { return issued_; }
  RemoteStore& store() const { return *store_; }

 private:
  RemoteStore* store_;
  std::array<Clock, kPipes> pipe_{};
  std::array<uint32_t, kPipes> issued_{};
};

}  // namespace tilewright::twin
