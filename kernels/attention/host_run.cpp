// The schedule of the host attention: rounds of sequences and key heads; in each, keys and values are packed
// and then rows pass over them, both by threads as they become free. A row's sums depend on the key blocks,
// which are cut at fixed places of its sequence, and on nothing else: results are the same bits for any
// number of threads, rows a task has, and sequences a batch has.
#include "attention/host_run.hpp"

#include <algorithm>
#include <atomic>
#include <new>
#include <vector>

#include "_host/thread_pool.hpp"
#include "attention/host_chunk.hpp"

namespace tw::attention {
namespace {

constexpr int64_t kKeptBytes = 64 << 20;
constexpr int64_t kRoundBytes = 1 << 20;     // packed by a thread in a round, if that holds one head
constexpr int64_t kRowBytes = 512 << 10;     // of rows and sums that pass over near keys
constexpr int64_t kTasksPerThread = 4;       // so that they end together
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

// Key heads [first, last) of one sequence, in a round.
struct Part {
  Task sequence;
  int64_t first_head, last_head;
  int64_t packed, each;  // where the first head's keys and values are packed, and how many bytes each takes
};

// One item of work: a block of keys of all heads of a part, or rows of one of them.
struct Item {
  int64_t part;
  int64_t block;  // of keys
  Task rows;
};

Task sequence_of(const Problem& p, int64_t i) {
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

class Run {
 public:
  Run(const Problem& p, int threads) : p_(p), shape_(p), threads_(threads) { count_rows(); }

  bool all() {
    for (int64_t i = 0; i < p_.sequences; ++i) {
      const Task sequence = sequence_of(p_, i);
      if (sequence.rows() == 0) continue;
      for (int64_t head = 0; head < p_.key_heads;) {
        if (!add_heads(sequence, &head) && !flush()) return false;
      }
    }
    return flush();
  }

 private:
  // Rows a task takes: as many as stay near, fewer where threads would have nothing to do.
  void count_rows() {
    int64_t total = 0;
    for (int64_t i = 0; i < p_.sequences; ++i) {
      const int64_t rows = sequence_of(p_, i).rows();
      total += rows * p_.key_heads;
      most_rows_ = std::max(most_rows_, rows);
    }
    const int64_t row_bytes = shape_.value_bytes + shape_.key_bytes + (p_.kind == kI8 ? 4 * p_.dk : 0);
    const int64_t share = threads_ <= 1 ? total : total / (threads_ * kTasksPerThread);
    const int64_t most = std::clamp<int64_t>(kRowBytes / row_bytes, 1, std::max<int64_t>(1, share));
    most_rows_ = std::min(most_rows_, round_up(most, shape_.tile_m));
  }

  // Adds as many heads as the round has room for, at least one to an empty round; false when it is full.
  bool add_heads(const Task& sequence, int64_t* head) {
    const int64_t each = Packed::bytes(p_, shape_, sequence.keys);
    const int64_t room = kRoundBytes * threads_ - bytes_;
    const int64_t fit = std::max<int64_t>(each == 0 ? p_.key_heads : room / each, parts_.empty() ? 1 : 0);
    const int64_t count = std::min(fit, p_.key_heads - *head);
    if (count == 0) return false;
    parts_.push_back({sequence, *head, *head + count, bytes_, each});
    bytes_ += count * each;
    *head += count;
    return true;
  }

  // Computes the round.
  bool flush() {
    if (parts_.empty()) return true;
    const Plan plan(p_, shape_, most_rows_);
    const int64_t room = round_up(std::max(plan.layout.size(), Packed::room_bytes(p_, shape_)), 4096);
    static thread_local Workspace workspace;
    packed_ = workspace.get(bytes_ + room * threads_ + 4096);
    if (packed_ == nullptr) return false;
    char* rooms = packed_ + round_up(bytes_, 4096);
    each(key_items(), [&](const Item& item, int index) { pack(item, rooms + index * room); });
    each(row_items(), [&](const Item& item, int index) {
      const Part& part = parts_[static_cast<size_t>(item.part)];
      const Packed packed = packed_of(part, item.rows);
      Chunk(p_, shape_, plan, item.rows, packed, rooms + index * room).run();
    });
    workspace.trim(kKeptBytes);
    parts_.clear();
    bytes_ = 0;
    return true;
  }

  Packed packed_of(const Part& part, const Task& task) const {
    return Packed(p_, shape_, task, packed_ + part.packed + (task.key_head - part.first_head) * part.each);
  }

  void pack(const Item& item, char* room) const {
    const Part& part = parts_[static_cast<size_t>(item.part)];
    Task task = part.sequence;
    for (task.key_head = part.first_head; task.key_head < part.last_head; ++task.key_head) {
      packed_of(part, task).pack(item.block, room);
    }
  }

  // Blocks of keys that some row sees.
  std::vector<Item> key_items() const {
    std::vector<Item> items;
    for (size_t i = 0; i < parts_.size(); ++i) {
      const Sight sight = sight_of(p_, parts_[i].sequence);
      for (int64_t b = sight.low / shape_.tile_n; b * shape_.tile_n <= sight.high; ++b) {
        items.push_back({static_cast<int64_t>(i), b, {}});
      }
    }
    return items;
  }

  // Rows, the last ones first, since they see the most keys; of the same rows one head after the other.
  std::vector<Item> row_items() const {
    std::vector<Item> items;
    for (size_t i = 0; i < parts_.size(); ++i) {
      const Part& part = parts_[i];
      for (int64_t end = part.sequence.end; end > 0; end -= std::min(most_rows_, end)) {
        Task task = part.sequence;
        task.begin = std::max<int64_t>(0, end - most_rows_);
        task.end = end;
        for (task.key_head = part.first_head; task.key_head < part.last_head; ++task.key_head) {
          items.push_back({static_cast<int64_t>(i), 0, task});
        }
      }
    }
    if (threads_ > 1) {
      std::stable_sort(items.begin(), items.end(),
                       [](const Item& a, const Item& b) { return cost(a.rows) > cost(b.rows); });
    }
    return items;
  }

  template <class Body>
  void each(const std::vector<Item>& items, const Body& body) const {
    if (items.empty()) return;
    std::atomic<size_t> next{0};
    auto work = [&](int index, int) {
      const Session session(*p_.kernels, p_.kind);
      for (size_t i = next.fetch_add(1); i < items.size(); i = next.fetch_add(1)) body(items[i], index);
    };
    run_tasks(static_cast<int>(std::min<size_t>(static_cast<size_t>(threads_), items.size())), work);
  }

  const Problem& p_;
  Shape shape_;
  int threads_;
  int64_t most_rows_ = 1;
  std::vector<Part> parts_;
  int64_t bytes_ = 0;
  char* packed_ = nullptr;
};

int useful_threads(const Problem& p) {
  int64_t macs = 0;
  for (int64_t i = 0; i < p.sequences; ++i) {
    macs += cost(sequence_of(p, i)) * p.key_heads * (p.dk + p.dv);
  }
  return static_cast<int>(std::min<int64_t>(p.threads, 1 + macs / kMacsPerThread));
}

}  // namespace

bool run(const Problem& problem) {
  try {
    return Run(problem, useful_threads(problem)).all();
  } catch (const std::bad_alloc&) {
    return false;
  }
}

}  // namespace tw::attention
