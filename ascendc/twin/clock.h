// The simulated time of a core that runs with data: what GetSystemCycle reads and the timeline schedule goes
// by.
#pragma once

#include <memory>
#include <unordered_map>

#include "base.h"

namespace tilewright::twin {

// What the clocks of a launch share: costs and the times of flags between cores.
class Clocks {
 public:
  explicit Clocks(const Machine& machine);
  ~Clocks();
  // The shape of its groups, once a kernel says that it is mixed.
  void Shape(int vectors);

 private:
  friend class CoreClock;
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

class CoreClock {
 public:
  // `keep`: EndOf will be asked for every instruction.
  CoreClock(Clocks& clocks, int core, bool keep);
  ~CoreClock();

  // In program order.
  void Push(const Record& record);
  // Another core may have set a flag.
  void Resume();
  // Cycle at which the result of record `seq` is visible; each is asked for once.
  double EndOf(uint64_t seq);
  double Now() const;
  // Cycle of the last result.
  double Finish();

 private:
  struct Parts;
  void Take();

  std::unique_ptr<Parts> parts_;
  std::unordered_map<uint64_t, double> ends_;
  bool keep_;
};

}  // namespace tilewright::twin
