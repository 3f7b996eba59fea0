// Timing of page allocators under the same loads: threads that take a burst of pages, then give them back.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tw::pages {

struct Load {
  int64_t pages = 65536;
  int64_t burst = 2048;  // pages a thread takes before it frees them, in the same order
  int64_t batch = 1;     // pages a call; 1: single calls
  double filled = 0.0;   // share of the pages in use by others before, chosen at random
  int threads = 1;
  bool pinned = false;  // each thread on a processor of its own
};

// Nanoseconds a page of one thread's round: of a burst, its two halves timed apart, and of bursts in a row.
struct Round {
  double alloc_ns, free_ns, pair_ns;
};

// Every round of every thread, and the least share of its time that a thread was running: well below 1,
// threads waited for a processor, did not meet as they would, and contention shows too small.
struct Timing {
  std::vector<Round> rounds;
  double running = 1.0;
};

// Names of allocators `time_pages` knows: bitmap, bitmap-checked, mutex-vector, mutex-deque.
std::vector<std::string> allocator_names();

// `rounds` rounds of every thread after a first one, started together on a fresh allocator. Who is done goes
// on until all are, so that all threads are at work in every round. Throws std::invalid_argument for an
// unknown name, or a load that could run out of pages.
Timing time_pages(const std::string& allocator, const Load& load, int rounds);

}  // namespace tw::pages
