// Threads on one page pool: pages go from hand to hand, are shared, and are freed by whoever holds them last.
//
//   pages_stress stress|history pool|checked|racy THREADS STEPS PAGES SEED
//
// `stress` looks for pages with two owners and for losses; ThreadSanitizer, with which this is built, for
// missing order between one owner's use of a page and the next one's. `history` prints every operation with
// the times of its call and return. `racy` is a pool that does not take its bits atomically: both must find
// that out.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "_pages/page_pool.hpp"

using tw::pages::BasicPagePool;
using tw::pages::Handle;
using tw::pages::kNone;
using tw::pages::page_of;
using tw::pages::Release;

namespace {

// As if fetch_or were a load, an or and a store.
class RacyPool {
 public:
  explicit RacyPool(int64_t pages) : used_(static_cast<size_t>(pages)) {}
  Handle alloc() {
    for (size_t page = 0; page < used_.size(); ++page) {
      if (used_[page].load(std::memory_order_relaxed)) continue;
      std::this_thread::yield();
      used_[page].store(1, std::memory_order_relaxed);
      return page;
    }
    return kNone;
  }
  int64_t alloc_some(std::span<Handle> out) {
    out[0] = alloc();
    return out[0] == kNone ? 0 : 1;
  }
  Release share(Handle) { return Release::twice; }
  Release release(Handle page) {
    used_[page].store(0, std::memory_order_relaxed);
    return Release::freed;
  }
  tw::pages::BatchRelease release_all(std::span<const Handle> pages) {
    for (const Handle page : pages) release(page);
    return {std::ssize(pages)};
  }
  int64_t free_pages() const { return std::count(used_.begin(), used_.end(), 0); }

 private:
  std::vector<std::atomic<int>> used_;
};

struct Options {
  bool history = false;
  int threads = 2;
  int64_t steps = 1000, pages = 64;
  uint64_t seed = 0;
};

// One reference to a page, and what its owner wrote there.
struct Item {
  Handle handle;
  uint64_t tag;
};

struct Event {
  char kind;  // a alloc, n alloc that found none, s share, f release that freed, k release that kept
  int64_t page, start, end;
};

int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

constexpr int kSlots = 8;

template <class Pool>
struct World {
  explicit World(const Options& o) : options(o), pool(o.pages), content(static_cast<size_t>(o.pages)) {}
  const Options& options;
  Pool pool;
  std::vector<uint64_t> content;  // plain memory, as a page's data is
  std::atomic<Item*> slots[kSlots] = {};
  std::atomic<int> waiting{0};
  std::atomic<int64_t> wrong{0};
};

template <class Pool>
class Worker {
 public:
  Worker(World<Pool>& world, int index)
      : world_(world), random_(world.options.seed * 1000 + static_cast<uint64_t>(index)), index_(index) {}

  void run() {
    world_.waiting.fetch_add(1);
    while (world_.waiting.load() < world_.options.threads) std::this_thread::yield();
    for (int64_t step = 0; step < world_.options.steps; ++step) {
      switch (random_() % 8) {
        case 0:
        case 1:
        case 2:
          alloc();
          break;
        case 3:
          share();
          break;
        case 4:
          exchange();
          break;
        case 5:
          batch();
          break;
        default:
          if (!items_.empty()) release(pick());
      }
    }
    while (!items_.empty()) release(pick());
  }

  const std::vector<Event>& events() const { return events_; }

 private:
  void note(char kind, int64_t page, int64_t start) {
    if (world_.options.history) events_.push_back({kind, page, start, now()});
  }

  void own(Handle handle) {
    const uint64_t tag = static_cast<uint64_t>(index_) << 32 | ++made_;
    world_.content[page_of(handle)] = tag;
    items_.push_back(std::make_unique<Item>(Item{handle, tag}));
  }

  std::unique_ptr<Item> pick() {
    std::swap(items_[random_() % items_.size()], items_.back());
    std::unique_ptr<Item> item = std::move(items_.back());
    items_.pop_back();
    return item;
  }

  void check(const Item& item) {
    if (world_.content[page_of(item.handle)] != item.tag) world_.wrong.fetch_add(1);
  }

  void alloc() {
    const int64_t start = now();
    const Handle handle = world_.pool.alloc();
    note(handle == kNone ? 'n' : 'a', handle == kNone ? -1 : page_of(handle), start);
    if (handle != kNone) own(handle);
  }

  void share() {
    if (items_.empty()) return;
    const Item& item = *items_[random_() % items_.size()];
    const int64_t start = now();
    if (world_.pool.share(item.handle) != Release::freed) return;
    note('s', page_of(item.handle), start);
    items_.push_back(std::make_unique<Item>(item));
  }

  void exchange() {
    std::unique_ptr<Item> mine;
    if (!items_.empty()) mine = pick();
    std::unique_ptr<Item> theirs(world_.slots[random_() % kSlots].exchange(mine.release()));
    if (theirs) {
      check(*theirs);
      items_.push_back(std::move(theirs));
    }
  }

  void release(std::unique_ptr<Item> item) {
    check(*item);
    const int64_t start = now();
    const Release what = world_.pool.release(item->handle);
    note(what == Release::freed ? 'f' : 'k', page_of(item->handle), start);
    if (what != Release::freed && what != Release::kept) world_.wrong.fetch_add(1);
  }

  void batch() {
    std::vector<Handle> pages(1 + random_() % 100);
    const int64_t start = now();
    const int64_t got = world_.pool.alloc_some(pages);
    for (int64_t i = 0; i < got; ++i) note('a', page_of(pages[i]), start);
    for (int64_t i = 0; i < got; ++i) own(pages[i]);
    for (int64_t i = 0; i < got; ++i) check(*items_[items_.size() - 1 - static_cast<size_t>(i)]);
    items_.resize(items_.size() - static_cast<size_t>(got));
    const int64_t freed = now();
    const auto result = world_.pool.release_all(std::span(pages).first(got));
    for (int64_t i = 0; i < got; ++i) note('f', page_of(pages[i]), freed);
    if (result.freed != got) world_.wrong.fetch_add(1);
  }

  World<Pool>& world_;
  std::mt19937_64 random_;
  int index_;
  uint64_t made_ = 0;
  std::vector<std::unique_ptr<Item>> items_;
  std::vector<Event> events_;
};

template <class Pool>
int run(const Options& options) {
  World<Pool> world(options);
  std::vector<Worker<Pool>> workers;
  for (int i = 0; i < options.threads; ++i) workers.emplace_back(world, i);
  {
    std::vector<std::jthread> threads;
    for (auto& worker : workers) threads.emplace_back([&worker] { worker.run(); });
  }
  for (auto& slot : world.slots) {
    const std::unique_ptr<Item> left(slot.exchange(nullptr));
    if (!left) continue;
    const int64_t start = now();
    const Release what = world.pool.release(left->handle);
    if (options.history) {
      std::printf("0 %c %lld %lld %lld\n", what == Release::freed ? 'f' : 'k',
                  static_cast<long long>(page_of(left->handle)), static_cast<long long>(start),
                  static_cast<long long>(now()));
    }
  }
  for (size_t t = 0; t < workers.size(); ++t) {
    for (const Event& e : workers[t].events()) {
      std::printf("%zu %c %lld %lld %lld\n", t, e.kind, static_cast<long long>(e.page),
                  static_cast<long long>(e.start), static_cast<long long>(e.end));
    }
  }
  const int64_t lost = options.pages - world.pool.free_pages(), wrong = world.wrong.load();
  std::fprintf(stderr, "wrong %lld lost %lld\n", static_cast<long long>(wrong), static_cast<long long>(lost));
  return wrong || lost ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) return 2;
  Options options;
  options.history = std::strcmp(argv[1], "history") == 0;
  options.threads = std::atoi(argv[3]);
  options.steps = std::atoll(argv[4]);
  options.pages = std::atoll(argv[5]);
  options.seed = std::strtoull(argv[6], nullptr, 10);
  const std::string pool = argv[2];
  if (pool == "racy") return run<RacyPool>(options);
  return pool == "checked" ? run<BasicPagePool<true>>(options) : run<BasicPagePool<false>>(options);
}
