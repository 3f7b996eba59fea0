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

// Nanoseconds a page of one thread's round.
struct Round {
  double alloc_ns, free_ns;
};

// Names of allocators `time_pages` knows: bitmap, bitmap-checked, mutex-vector, mutex-deque.
std::vector<std::string> allocator_names();

// `rounds` bursts of every thread, started together, on a fresh allocator; every round of every thread, after
// the first of each. Throws std::invalid_argument for an unknown name, or a load that could run out of pages.
std::vector<Round> time_pages(const std::string& allocator, const Load& load, int rounds);

}  // namespace tw::pages
