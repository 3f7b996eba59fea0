// Prepared calls that run one after another with no Python in between: what a captured graph replays.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "prepared.hpp"

namespace tw::bindings {

class Plan {
 public:
  // Raises UsageError for a list with a hole. The memory of the calls must outlive this.
  explicit Plan(std::vector<std::shared_ptr<Prepared>> calls);

  // Runs every call in order; stops at the first that fails and raises what it raises. Needs no GIL.
  void run() const;

  // As `run`; the ns of each call.
  std::vector<int64_t> profile() const;

  int64_t size() const { return static_cast<int64_t>(calls_.size()); }

 private:
  std::vector<std::shared_ptr<Prepared>> calls_;
};

}  // namespace tw::bindings
