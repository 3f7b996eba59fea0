// The cores of a launch on host threads.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "machine.h"

namespace tilewright::twin {

struct Outcome {
  std::vector<Finding> findings;
  Counts counts;
  std::vector<std::string> printed;
  uint64_t inserted_syncs = 0;  // by auto_sync
  uint64_t unchecked_gm = 0;    // accesses to global memory in which no races were looked for
  double cycles = 0;            // of the longest core in simulated time; 0 without data
  uint32_t cores = 0;           // that ran
  const char* kind = "";        // "aic", "aiv", "mix"; "" where nothing said so
};

// Calls `kernel` once on every core. `threads` <= 0: all of the host's; a schedule with a seed runs on one,
// so that it can be repeated.
Outcome RunCores(Machine& machine, const std::function<void()>& kernel, int threads);

}  // namespace tilewright::twin
