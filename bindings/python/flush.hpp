// Evicting caches: a core's private ones can only be evicted by work on that core.
#pragma once

#include <cstdint>
#include <vector>

namespace tw::bindings {

// Rewrites `bytes` of memory that is used for nothing else, a share on every CPU this process may use, each
// by a thread bound to that CPU. Returns the CPUs the threads ran on. The memory is kept for the next time.
std::vector<int> flush_caches(int64_t bytes);

}  // namespace tw::bindings
