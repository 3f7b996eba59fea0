// Flags between the cores of a launch, a counter for each core and flag id, and the waiting of host threads
// for them.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "groups.h"
#include "order.h"
#include "twin/bridge.h"

namespace tilewright::twin {

constexpr uint32_t kMostRaised = 15;  // of a counter

class Board {
 public:
  explicit Board(uint32_t blocks);

  size_t Cores() const { return static_cast<size_t>(blocks_) * kCoresOfGroup; }
  void Shape(int vectors);  // of all groups
  // Vector cores of a mixed kernel's group.
  int Vectors();

  struct Setting {
    int core;
    uint8_t mode;
    int id;
    uint32_t cores;  // SyncAll of the first so many; 0: all
    Place at;
    const Remote* known;
  };
  // Core ids whose counter is past kMostRaised because of this.
  std::vector<int> Set(const Setting& setting, RemoteStore& store);
  // True where the counter was raised: it is lowered, and `known` says what that tells.
  bool TryWait(int core, int id, const Remote** known);
  bool Raised(int core, int id);
  // A signal through global memory, which whoever waits for `key` takes.
  void Signal(uint32_t key, const Remote* known, Place at);
  // Raises one core's counter, so that it goes on after its deadlock was reported, as if all that has
  // happened so far had led to it.
  void Force(int core, int id, RemoteStore& store);

  // A core that waits for flag `id` of core `on` (itself, or none for a signal), and what it has issued so
  // far.
  struct Parked {
    int on, id;
    Place at;
    uint64_t seq;
    std::array<uint32_t, kPipes> issued;
  };
  void Park(int core, const Parked& parked);
  void Unpark(int core);
  void End(int core, const std::array<uint32_t, kPipes>& issued);
  // Who waits for whom from `core` on, in words.
  std::string Explain(int core);
  // Whether this core is the one to report that nothing moves any more.
  bool TakeVictim(int core);
  std::string NameOf(int core) const;

  // Flags that nobody waited for, or that never took effect since others did not set theirs.
  struct Left {
    int core, id;
    Place at;
    bool partial;
  };
  std::vector<Left> Leftovers();

  // Host threads: something changed that a parked core may wait for.
  void Touch();
  uint64_t Version();
  // Waits until the version differs from `seen`; false: every thread waits and nothing will ever change.
  bool WaitForChange(uint64_t seen);
  void Enter();  // one more thread that may change something
  void Leave();

 private:
  struct Raise {
    const Remote* known;
    Place at;
  };
  using Key = std::pair<int, int>;  // core, id

  void Changed();
  void Deadlock();
  std::vector<int> Missing(int core, int id, std::string& text);

  const uint32_t blocks_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Groups groups_;
  std::map<std::pair<int, Key>, std::deque<Raise>> arrived_;  // mode, then who set what
  std::map<Key, std::deque<Raise>> raised_;
  std::map<Key, uint64_t> ever_raised_;
  std::map<int, Parked> parked_;
  std::map<int, std::array<uint32_t, kPipes>> ended_;
  int victim_ = -1;
  uint64_t version_ = 0, deadlocks_ = 0;
  int threads_ = 0, waiting_ = 0;
};

}  // namespace tilewright::twin
