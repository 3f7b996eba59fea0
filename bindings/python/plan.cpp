#include "plan.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include "errors.hpp"

namespace tw::bindings {

Plan::Plan(std::vector<std::shared_ptr<Prepared>> calls) : calls_(std::move(calls)) {
  if (std::ranges::any_of(calls_, [](const auto& call) { return call == nullptr; })) {
    raise("UsageError", "a plan has None among its calls; accepted: prepared calls");
  }
}

void Plan::run() const {
  for (const auto& call : calls_) call->run();
}

std::vector<int64_t> Plan::profile() const {
  using Clock = std::chrono::steady_clock;
  std::vector<int64_t> taken;
  taken.reserve(calls_.size());
  for (const auto& call : calls_) {
    const auto start = Clock::now();
    call->run();
    taken.push_back(std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count());
  }
  return taken;
}

}  // namespace tw::bindings
