// The schedule of the host attention: tasks of rows, taken by threads as they become free. A row's sums
// depend on the key blocks, which are cut at fixed places of its sequence, and on nothing else: results are
// the same bits for any number of threads, rows a task has, and sequences a batch has.
#include "attention/host_run.hpp"

#include <algorithm>
#include <atomic>
#include <new>
#include <vector>

#include "_host/thread_pool.hpp"
#include "attention/host_chunk.hpp"

namespace tw::attention {
namespace {

constexpr int64_t kKeptScratchBytes = 64 << 20;
constexpr int64_t kRowBytes = 640 << 10;       // of packed rows and sums that pass over a packed key block
constexpr int64_t kTasksPerThread = 4;       // that they end together
constexpr int64_t kMacsPerThread = 1 << 18;  // fewer are not worth another thread

// A thread's use of one kind's kernels.
class Session {
 public:
  Session(const KernelTable& table, Kind kind) : end_(table.end[kind]) {
    if (table.begin[kind] != nullptr) table.begin[kind]();
  }
  ~Session() {
    if (end_ != nullptr) end_();
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

 private:
  void (*end_)();
};

Task whole_sequence(const Problem& p, int64_t i) {
  Task task{};
  if (p.cu_q == nullptr) {
    task.batch = i;
    task.queries = p.queries;
    task.keys = p.keys;
  } else {
    task.first_query = p.cu_q[i];
    task.queries = p.cu_q[i + 1] - p.cu_q[i];
    task.first_key = p.cu_k[i];
    task.keys = p.cu_k[i + 1] - p.cu_k[i];
  }
  task.end = task.queries * (p.heads / p.key_heads);
  return task;
}

// Products of a task at most, in units that only compare.
int64_t cost(const Task& t) { return t.rows() * t.keys; }

// Rows a task takes: as many as the second cache holds, fewer where threads would have nothing to do.
int64_t rows_per_task(const Problem& p, int threads, int64_t total_rows) {
  const int64_t own = p.dk / kGroup[p.kind] + (p.kind == kI8 ? p.dk : 0);
  const int64_t row_bytes = 4 * (round_up(p.dv, kDvUnit) + own);
  const int64_t most = std::max<int64_t>(1, kRowBytes / row_bytes);
  const int64_t share = threads <= 1 ? total_rows : total_rows / (threads * kTasksPerThread);
  return round_up(std::clamp<int64_t>(share, 1, most), p.tile_m);
}

std::vector<Task> tasks_of(const Problem& p, int threads) {
  std::vector<Task> tasks;
  int64_t total = 0;
  for (int64_t i = 0; i < p.sequences; ++i) total += whole_sequence(p, i).rows() * p.key_heads;
  const int64_t each = rows_per_task(p, threads, total);
  for (int64_t i = 0; i < p.sequences; ++i) {
    const Task whole = whole_sequence(p, i);
    for (int64_t head = 0; head < p.key_heads; ++head) {
      for (int64_t end = whole.end; end > 0; end -= std::min(each, end)) {
        Task task = whole;
        task.key_head = head;
        task.begin = std::max<int64_t>(0, end - each);
        task.end = end;
        tasks.push_back(task);
      }
    }
  }
  if (threads > 1) {
    std::stable_sort(tasks.begin(), tasks.end(),
                     [](const Task& a, const Task& b) { return cost(a) > cost(b); });
  }
  return tasks;
}

int useful_threads(const Problem& p) {
  int64_t macs = 0;
  for (int64_t i = 0; i < p.sequences; ++i) {
    macs += cost(whole_sequence(p, i)) * p.key_heads * (p.dk + p.dv);
  }
  return static_cast<int>(std::min<int64_t>(p.threads, 1 + macs / kMacsPerThread));
}

bool run_tasks_of(const Problem& p) {
  const int wanted = useful_threads(p);
  const std::vector<Task> tasks = tasks_of(p, wanted);
  if (tasks.empty()) return true;
  int64_t most = 0;
  for (const Task& task : tasks) most = std::max(most, task.rows());
  const Plan plan(p, most);
  const int64_t each = round_up(plan.layout.size(), 4096);
  const int threads = static_cast<int>(std::min<int64_t>(wanted, static_cast<int64_t>(tasks.size())));
  static thread_local Workspace workspace;
  char* memory = workspace.get(each * threads);
  if (memory == nullptr) return false;
  std::atomic<size_t> next{0};
  auto work = [&](int index, int) {
    const Session session(*p.kernels, p.kind);
    for (size_t i = next.fetch_add(1); i < tasks.size(); i = next.fetch_add(1)) {
      Chunk(p, plan, tasks[i], memory + index * each).run();
    }
  };
  run_tasks(threads, work);
  workspace.trim(kKeptScratchBytes);
  return true;
}

}  // namespace

bool run(const Problem& problem) {
  try {
    return run_tasks_of(problem);
  } catch (const std::bad_alloc&) {
    return false;
  }
}

}  // namespace tw::attention
