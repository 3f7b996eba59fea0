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

// As time_calls, with what the calling thread waited during each sample while ready to run (on a run queue,
// other threads holding the processors). The second list is empty where the system does not tell. Samples
// during whose readings of the clock the thread was interrupted are taken again.
std::pair<std::vector<int64_t>, std::vector<int64_t>> time_and_waits(const Prepared& call, int count,
                                                                     int64_t flush_bytes, int batch);

// The clock of the core this runs on, in MHz, from the time of a chain of dependent multiplications (64-bit
// imul: 3 cycles each on x86-64 processors of the last decade). Neighbours on the core's other thread do not
// lengthen the chain, and the best of a few short chains escapes interruptions. Takes about 50 us.
double core_mhz();

}  // namespace tw::bindings
