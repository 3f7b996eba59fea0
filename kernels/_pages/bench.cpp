#include "_pages/bench.hpp"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <mutex>
#include <numeric>
#include <random>
#include <stdexcept>
#include <thread>

#include "_pages/page_pool.hpp"

namespace tw::pages {
namespace {

// What a program without a lock-free pool would write first.
template <class Container>
class MutexList {
 public:
  explicit MutexList(int64_t pages) : free_(static_cast<size_t>(pages)) {
    std::iota(free_.begin(), free_.end(), 0u);
  }
  Handle alloc() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return kNone;
    const uint32_t page = free_.back();
    free_.pop_back();
    return page;
  }
  void release(Handle page) {
    const std::lock_guard lock(mutex_);
    free_.push_back(static_cast<uint32_t>(page));
  }
  bool alloc_all(std::span<Handle> out) {
    const std::lock_guard lock(mutex_);
    if (free_.size() < out.size()) return false;
    std::copy(free_.end() - std::ssize(out), free_.end(), out.begin());
    free_.erase(free_.end() - std::ssize(out), free_.end());
    return true;
  }
  void release_all(std::span<const Handle> pages) {
    const std::lock_guard lock(mutex_);
    free_.insert(free_.end(), pages.begin(), pages.end());
  }

 private:
  std::mutex mutex_;
  Container free_;
};

// Threads leave together: a load under which one still starts while another is done would be another load.
class StartLine {
 public:
  explicit StartLine(int threads) : missing_(threads) {}
  void wait() {
    missing_.fetch_sub(1);
    while (missing_.load(std::memory_order_acquire) > 0) std::this_thread::yield();
  }

 private:
  std::atomic<int> missing_;
};

void pin_to(int index) {
  cpu_set_t usable, one;
  if (sched_getaffinity(0, sizeof usable, &usable) != 0) return;
  const int count = std::max(1, CPU_COUNT(&usable));
  int wanted = index % count;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &usable) || wanted-- != 0) continue;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    pthread_setaffinity_np(pthread_self(), sizeof one, &one);
    return;
  }
}

double ns_between(std::chrono::steady_clock::time_point from, std::chrono::steady_clock::time_point to) {
  return static_cast<double>(std::chrono::duration_cast<std::chrono::nanoseconds>(to - from).count());
}

template <class Allocator>
Round one_round(Allocator& allocator, std::span<Handle> pages, int64_t batch) {
  const auto start = std::chrono::steady_clock::now();
  if (batch == 1) {
    for (Handle& page : pages) page = allocator.alloc();
  } else {
    for (size_t i = 0; i < pages.size(); i += batch) allocator.alloc_all(pages.subspan(i, batch));
  }
  const auto middle = std::chrono::steady_clock::now();
  if (batch == 1) {
    for (const Handle page : pages) allocator.release(page);
  } else {
    for (size_t i = 0; i < pages.size(); i += batch) allocator.release_all(pages.subspan(i, batch));
  }
  const auto end = std::chrono::steady_clock::now();
  const double count = static_cast<double>(pages.size());
  return {ns_between(start, middle) / count, ns_between(middle, end) / count};
}

// Takes all pages and gives random ones back, so that what is free lies scattered.
template <class Allocator>
void fill(Allocator& allocator, const Load& load) {
  if (load.filled <= 0) return;
  std::vector<Handle> all(static_cast<size_t>(load.pages));
  for (Handle& page : all) page = allocator.alloc();
  std::shuffle(all.begin(), all.end(), std::mt19937_64(1));
  const auto kept = static_cast<size_t>(load.filled * static_cast<double>(load.pages));
  for (size_t i = kept; i < all.size(); ++i) allocator.release(all[i]);
}

template <class Allocator>
std::vector<Round> measure(const Load& load, int rounds) {
  Allocator allocator(load.pages);
  fill(allocator, load);
  StartLine line(load.threads);
  std::vector<std::vector<Round>> found(static_cast<size_t>(load.threads));
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < load.threads; ++t) {
      threads.emplace_back([&, t] {
        if (load.pinned) pin_to(t);
        std::vector<Handle> pages(static_cast<size_t>(load.burst));
        std::vector<Round>& mine = found[static_cast<size_t>(t)];
        mine.reserve(static_cast<size_t>(rounds));
        line.wait();
        one_round(allocator, std::span(pages), load.batch);
        for (int r = 0; r < rounds; ++r) mine.push_back(one_round(allocator, std::span(pages), load.batch));
      });
    }
  }
  std::vector<Round> all;
  for (const auto& mine : found) all.insert(all.end(), mine.begin(), mine.end());
  return all;
}

void require(const Load& load, int rounds) {
  const auto free = static_cast<int64_t>(static_cast<double>(load.pages) * (1 - load.filled));
  if (load.threads < 1 || load.burst < 1 || rounds < 1) {
    throw std::invalid_argument("threads, burst and rounds must be 1 or more");
  }
  if (load.batch < 1 || load.burst % load.batch != 0) {
    throw std::invalid_argument("a burst of " + std::to_string(load.burst) +
                                " pages is not whole batches of " + std::to_string(load.batch));
  }
  if (load.filled < 0 || load.burst * load.threads > free) {
    throw std::invalid_argument(std::to_string(load.threads) + " threads that take " +
                                std::to_string(load.burst) + " pages each need more than the " +
                                std::to_string(free) + " free ones");
  }
}

struct Known {
  const char* name;
  std::vector<Round> (*measure)(const Load&, int);
};
constexpr Known kKnown[] = {
    {"bitmap", measure<BasicPagePool<false>>},
    {"bitmap-checked", measure<BasicPagePool<true>>},
    {"mutex-vector", measure<MutexList<std::vector<uint32_t>>>},
    {"mutex-deque", measure<MutexList<std::deque<uint32_t>>>},
};

}  // namespace

std::vector<std::string> allocator_names() {
  std::vector<std::string> names;
  for (const Known& known : kKnown) names.emplace_back(known.name);
  return names;
}

std::vector<Round> time_pages(const std::string& allocator, const Load& load, int rounds) {
  require(load, rounds);
  for (const Known& known : kKnown) {
    if (allocator == known.name) return known.measure(load, rounds);
  }
  throw std::invalid_argument("there is no allocator '" + allocator + "'");
}

}  // namespace tw::pages
