#include "_pages/bench.hpp"

#include <pthread.h>
#include <sched.h>
#include <time.h>

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
  void arrive() { missing_.fetch_sub(1, std::memory_order_acq_rel); }
  bool complete() const { return missing_.load(std::memory_order_acquire) <= 0; }
  void wait() {
    arrive();
    while (!complete()) std::this_thread::yield();
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

using Clock = std::chrono::steady_clock;

double ns_between(Clock::time_point from, Clock::time_point to) {
  return static_cast<double>(std::chrono::duration_cast<std::chrono::nanoseconds>(to - from).count());
}

template <class Allocator>
void take(Allocator& allocator, std::span<Handle> pages, int64_t batch) {
  if (batch == 1) {
    for (Handle& page : pages) page = allocator.alloc();
    return;
  }
  for (size_t i = 0; i < pages.size(); i += batch) allocator.alloc_all(pages.subspan(i, batch));
}

template <class Allocator>
void give_back(Allocator& allocator, std::span<const Handle> pages, int64_t batch) {
  if (batch == 1) {
    for (const Handle page : pages) allocator.release(page);
    return;
  }
  for (size_t i = 0; i < pages.size(); i += batch) allocator.release_all(pages.subspan(i, batch));
}

// Reading the clock takes as long as two pages do: pairs are timed over many pages.
constexpr int64_t kPairPages = 2048;

template <class Allocator>
Round one_round(Allocator& allocator, std::span<Handle> pages, int64_t batch) {
  const double count = static_cast<double>(pages.size());
  const int64_t repeats = std::max<int64_t>(1, kPairPages / std::ssize(pages));
  const auto start = Clock::now();
  take(allocator, pages, batch);
  const auto middle = Clock::now();
  give_back(allocator, pages, batch);
  const auto end = Clock::now();
  for (int64_t i = 0; i < repeats; ++i) {
    take(allocator, pages, batch);
    give_back(allocator, pages, batch);
  }
  const double pairs = ns_between(end, Clock::now()) / static_cast<double>(repeats);
  return {ns_between(start, middle) / count, ns_between(middle, end) / count, pairs / count};
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

double running_ns() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

template <class Allocator>
class Bench {
 public:
  Bench(const Load& load, int rounds)
      : load_(load),
        rounds_(rounds),
        allocator_(load.pages),
        start_(load.threads),
        finish_(load.threads),
        found_(static_cast<size_t>(load.threads)) {
    fill(allocator_, load);
  }

  Timing run() {
    {
      std::vector<std::jthread> threads;
      for (int t = 0; t < load_.threads; ++t) threads.emplace_back([this, t] { work(t); });
    }
    Timing all;
    for (const Timing& mine : found_) {
      all.rounds.insert(all.rounds.end(), mine.rounds.begin(), mine.rounds.end());
      all.running = std::min(all.running, mine.running);
    }
    return all;
  }

 private:
  void work(int index) {
    if (load_.pinned) pin_to(index);
    std::vector<Handle> room(static_cast<size_t>(load_.burst));
    const std::span<Handle> pages(room);
    Timing& mine = found_[static_cast<size_t>(index)];
    mine.rounds.reserve(static_cast<size_t>(rounds_));
    start_.wait();
    one_round(allocator_, pages, load_.batch);
    const auto began = Clock::now();
    const double ran = running_ns();
    for (int r = 0; r < rounds_; ++r) mine.rounds.push_back(one_round(allocator_, pages, load_.batch));
    mine.running = (running_ns() - ran) / ns_between(began, Clock::now());
    for (finish_.arrive(); !finish_.complete();) one_round(allocator_, pages, load_.batch);
  }

  const Load& load_;
  int rounds_;
  Allocator allocator_;
  StartLine start_, finish_;
  std::vector<Timing> found_;
};

template <class Allocator>
Timing measure(const Load& load, int rounds) {
  return Bench<Allocator>(load, rounds).run();
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
  Timing (*measure)(const Load&, int);
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

Timing time_pages(const std::string& allocator, const Load& load, int rounds) {
  require(load, rounds);
  for (const Known& known : kKnown) {
    if (allocator == known.name) return known.measure(load, rounds);
  }
  throw std::invalid_argument("there is no allocator '" + allocator + "'");
}

}  // namespace tw::pages
