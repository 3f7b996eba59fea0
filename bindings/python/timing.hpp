// Timing of prepared calls: nothing but the call stands between two readings of the clock.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "prepared.hpp"

namespace tw::bindings {

// `count` samples in ns, each the time of `batch` consecutive calls. With `flush_bytes` that many bytes of
// other memory are rewritten before each sample, a share on every core, so that operands leave the caches.
std::vector<int64_t> time_calls(const Prepared& call, int count, int64_t flush_bytes, int batch);

// `blocks` blocks of the order A B B A: two samples of each call per block, so that drift hits both alike.
std::pair<std::vector<int64_t>, std::vector<int64_t>> time_pair(const Prepared& a, const Prepared& b,
                                                                int blocks, int64_t flush_bytes, int batch);

}  // namespace tw::bindings
