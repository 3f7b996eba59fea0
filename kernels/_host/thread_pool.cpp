#include "_host/thread_pool.hpp"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <new>

#include "_host/export.hpp"

namespace tw {
namespace {

constexpr int kSpins = 4000;  // about 50 us of pause instructions before sleeping

void cpu_relax() { __builtin_ia32_pause(); }

void futex_wait(std::atomic<uint32_t>& word, uint32_t seen) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
}

void futex_wake_all(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

// Waits until `word` differs from `seen`; `sleepers` lets the other side skip the system call.
uint32_t wait_change(std::atomic<uint32_t>& word, uint32_t seen, std::atomic<uint32_t>& sleepers, int spins) {
  for (int i = 0; i < spins; ++i) {
    const uint32_t now = word.load(std::memory_order_acquire);
    if (now != seen) return now;
    cpu_relax();
  }
  sleepers.fetch_add(1, std::memory_order_seq_cst);
  uint32_t now = word.load(std::memory_order_seq_cst);
  while (now == seen) {
    futex_wait(word, seen);
    now = word.load(std::memory_order_seq_cst);
  }
  sleepers.fetch_sub(1, std::memory_order_relaxed);
  return now;
}

int usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
  const long n = sysconf(_SC_NPROCESSORS_ONLN);
  return n > 0 ? static_cast<int>(n) : 1;
}

class Pool {
 public:
  void run(int count, TaskFn task, void* context) {
    grow(count - 1);
    const int workers = started_ < count - 1 ? started_ : count - 1;
    task_ = task;
    context_ = context;
    count_ = count;
    pending_.store(static_cast<uint32_t>(workers), std::memory_order_relaxed);
    const uint32_t round = (epoch_.load(std::memory_order_relaxed) >> kCountBits) + 1;
    const uint32_t epoch = round << kCountBits | static_cast<uint32_t>(workers);
    for (int i = 1; i <= workers; ++i) free_[i].store(epoch, std::memory_order_relaxed);
    epoch_.store(epoch, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) != 0) futex_wake_all(epoch_);
    task(context, 0, count);
    for (int i = workers + 1; i < count; ++i) task(context, i, count);
    // What no worker has begun by now, because it sleeps or has no processor, is done here.
    for (int i = workers; i > 0; --i) {
      if (!take(i, epoch)) continue;
      task(context, i, count);
      pending_.fetch_sub(1, std::memory_order_relaxed);
    }
    uint32_t left = pending_.load(std::memory_order_acquire);
    while (left != 0) left = wait_change(pending_, left, waiters_, spins());
  }

  // Called at exit and in no other place: wakes and joins the workers.
  void stop() {
    stopping_.store(true, std::memory_order_relaxed);
    epoch_.fetch_add(1u << kCountBits, std::memory_order_seq_cst);
    futex_wake_all(epoch_);
    for (int i = 0; i < started_; ++i) pthread_join(threads_[i], nullptr);
    started_ = 0;
  }

 private:
  struct Start {
    Pool* pool;
    int index;
    uint32_t epoch;
  };

  static int spins() {
    static const int cpus = usable_cpus();
    return cpus > 1 ? kSpins : 0;
  }

  void grow(int wanted) {
    if (wanted > kMaxThreads - 1) wanted = kMaxThreads - 1;
    while (started_ < wanted) {
      Start* start = new (std::nothrow) Start{this, started_ + 1, epoch_.load(std::memory_order_relaxed)};
      if (start == nullptr) return;
      if (pthread_create(&threads_[started_], nullptr, &Pool::entry, start) != 0) {
        delete start;
        return;
      }
      ++started_;
    }
  }

  static void* entry(void* raw) {
    Start* start = static_cast<Start*>(raw);
    Pool* pool = start->pool;
    const int index = start->index;
    const uint32_t epoch = start->epoch;
    delete start;
    pool->serve(index, epoch);
    return nullptr;
  }

  // Part `index` of a round belongs to whoever takes it first.
  bool take(int index, uint32_t epoch) {
    return free_[index].compare_exchange_strong(epoch, kTaken, std::memory_order_acq_rel);
  }

  void serve(int index, uint32_t seen) {
    for (;;) {
      seen = wait_change(epoch_, seen, sleepers_, spins());
      if (stopping_.load(std::memory_order_relaxed)) return;
      // A round that does not count on this worker, or whose part others took, may already be over: touch
      // nothing of it.
      if (static_cast<uint32_t>(index) > (seen & kCountMask) || !take(index, seen)) continue;
      task_(context_, index, count_);
      if (pending_.fetch_sub(1, std::memory_order_seq_cst) == 1 &&
          waiters_.load(std::memory_order_seq_cst) != 0) {
        futex_wake_all(pending_);
      }
    }
  }

  // The low bits of the epoch say how many workers the round counts on.
  static constexpr uint32_t kCountBits = 9;
  static constexpr uint32_t kCountMask = (1u << kCountBits) - 1;
  static constexpr uint32_t kTaken = kCountMask;  // no epoch: more workers than there are

  alignas(64) std::atomic<uint32_t> epoch_{0};
  std::atomic<uint32_t> sleepers_{0};
  alignas(64) std::atomic<uint32_t> pending_{0};
  std::atomic<uint32_t> waiters_{0};
  alignas(64) TaskFn task_ = nullptr;
  void* context_ = nullptr;
  int count_ = 0;
  int started_ = 0;
  std::atomic<uint32_t> free_[kMaxThreads] = {};  // the epoch in which part i waits to be taken
  std::atomic<bool> stopping_{false};
  pthread_t threads_[kMaxThreads] = {};
};

std::atomic<Pool*> shared_pool{nullptr};
std::atomic<bool> busy{false};
std::atomic<int> chosen_threads{0};

// In a forked child the workers do not exist: forget the pool (its few bytes leak) and start anew when
// needed.
void after_fork_in_child() {
  shared_pool.store(nullptr, std::memory_order_relaxed);
  busy.store(false, std::memory_order_relaxed);
}

struct StopAtExit {
  StopAtExit() { pthread_atfork(nullptr, nullptr, &after_fork_in_child); }
  ~StopAtExit() {
    if (busy.exchange(true, std::memory_order_acquire)) return;
    Pool* pool = shared_pool.exchange(nullptr, std::memory_order_acq_rel);
    if (pool == nullptr) return;
    pool->stop();
    delete pool;
  }
};

Pool* get_pool() {
  static StopAtExit stop_at_exit;
  Pool* pool = shared_pool.load(std::memory_order_acquire);
  if (pool == nullptr) {
    pool = new (std::nothrow) Pool;
    shared_pool.store(pool, std::memory_order_release);
  }
  return pool;
}

}  // namespace

int default_threads() {
  const int chosen = chosen_threads.load(std::memory_order_relaxed);
  if (chosen > 0) return chosen;
  static const int cpus = usable_cpus();
  return cpus < kMaxThreads ? cpus : kMaxThreads;
}

int resolve_threads(int requested) {
  const int n = requested > 0 ? requested : default_threads();
  return n < kMaxThreads ? n : kMaxThreads;
}

void run_tasks(int count, TaskFn task, void* context) {
  if (count > 1 && !busy.exchange(true, std::memory_order_acquire)) {
    Pool* pool = get_pool();
    if (pool != nullptr) {
      pool->run(count, task, context);
      busy.store(false, std::memory_order_release);
      return;
    }
    busy.store(false, std::memory_order_release);
  }
  for (int i = 0; i < count; ++i) task(context, i, count);
}

}  // namespace tw

TW_EXPORT void tw_set_threads(int n) { tw::chosen_threads.store(n > 0 ? tw::resolve_threads(n) : 0); }

TW_EXPORT int tw_get_threads(void) { return tw::default_threads(); }
