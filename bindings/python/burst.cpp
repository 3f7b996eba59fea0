#include "burst.hpp"

#include <time.h>

#include <atomic>
#include <cstring>
#include <string>

#include "errors.hpp"

namespace tw::bindings {
namespace {

int64_t now_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t{1'000'000'000} * t.tv_sec + t.tv_nsec;
}

void require_widths(const std::vector<std::vector<Store>>& stores) {
  for (const std::vector<Store>& list : stores) {
    for (const auto& [address, value, width] : list) {
      if (address == 0 || (width != 1 && width != 2 && width != 4 && width != 8)) {
        raise("UsageError", "a store of " + std::to_string(width) + " bytes at " + std::to_string(address) +
                                "; accepted: 1, 2, 4 or 8 bytes at an address");
      }
    }
  }
}

}  // namespace

std::vector<int64_t> burst(const Prepared& call, const std::vector<std::vector<Store>>& stores) {
  require_widths(stores);
  std::vector<int64_t> times;
  times.reserve(stores.size());
  for (const std::vector<Store>& list : stores) {
    for (const auto& [address, value, width] : list) {
      std::memcpy(reinterpret_cast<void*>(address), &value, static_cast<size_t>(width));
    }
    // The stores are over before the clock is read: they are not the kernel's.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const int64_t start = now_ns();
    call.run();
    times.push_back(now_ns() - start);
  }
  return times;
}

}  // namespace tw::bindings
