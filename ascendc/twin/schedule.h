// When instructions take effect, within what a kernel's synchronisation allows.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "hazards.h"
#include "order.h"
#include "twin/record.h"

namespace tilewright::twin {

class Core;

enum class Schedule : uint8_t { Program, Timeline, Random };

// Holds instructions back and executes them in an order that the kernel did not forbid.
class Deferred {
 public:
  virtual ~Deferred() = default;

  // `clock`: what must have completed before. May execute this or others at once.
  void Add(const Record& record, uint32_t index, const Clock& clock, double end);
  // An instruction of the scalar unit, whose result the kernel waits for.
  void Now(Record& record, const Clock& clock, double now);
  // Everything that `clock` says has completed.
  void Complete(const Clock& clock);
  void All();

 protected:
  Deferred(Core& core, size_t window) : core_(core), window_(window) {}

  struct Held {
    Record record;
    uint32_t index;
    Clock clock;
    double end;
  };
  // Which of those that may go next goes; an index into `ready`, themselves indices into held_.
  virtual size_t Choose(const std::vector<size_t>& ready) = 0;
  // Whether one that nothing forces goes now; `now` is the scalar unit's time, or negative where there is
  // none.
  virtual bool Wants(const Held& held, double now) = 0;

  std::vector<Held> held_;  // in the order of arrival

 private:
  bool MustPrecede(const Held& first, const Held& second) const;
  bool Ready(size_t i) const;
  void RunOne();
  void Run(size_t i);

  Core& core_;
  size_t window_;
  std::vector<size_t> ready_;
};

std::unique_ptr<Deferred> MakeRandom(Core& core, uint64_t seed);
std::unique_ptr<Deferred> MakeTimeline(Core& core);

}  // namespace tilewright::twin
