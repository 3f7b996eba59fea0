#include "paged_attention/host_plan.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <new>
#include <vector>

#include "_host/half.hpp"
#include "_host/thread_pool.hpp"
#include "_host/workspace.hpp"

namespace tw::paged {
namespace {

// Outputs of a task's rows should stay in the first cache levels.
constexpr int64_t kStateBytes = 128 * 1024;
constexpr int64_t kFewestPages = 16;      // below that a split is not worth its merge
constexpr int64_t kInvariantPages = 128;  // of a split whose boundaries depend on nothing
constexpr int64_t kTasksPerThread = 4;

// Results of `splits` tasks of the same rows, which follow each other from `partial` on.
struct Merge {
  int64_t query, queries, head, heads;  // query heads here
  int64_t partial, splits;
};

struct Plan {
  std::vector<Task> tasks;
  std::vector<Merge> merges;
  int64_t rows = 0, heads = 0, partials = 0;  // the most of one task; all rows of all tasks
};

int64_t first_token(const Problem& p, int64_t position) {
  if (p.window <= 0.0) return 0;
  const double low = std::floor(static_cast<double>(position) - p.window) + 1.0;
  return low > 0.0 ? static_cast<int64_t>(low) : 0;
}

int64_t pages_of_split(const Problem& p) {
  if (p.split_pages > 0) return round_up(p.split_pages, kBlockPages);
  if (p.batch_invariant) return kInvariantPages;
  int64_t pages = 0;
  for (int64_t i = 0; i < p.sequences; ++i) {
    if (p.cu_q.i32(i + 1) > p.cu_q.i32(i)) pages += (p.seq_lens.i32(i) + kPage - 1) / kPage;
  }
  if (p.threads == 1) return round_up(std::max<int64_t>(pages, 1), kBlockPages);
  const int64_t wanted = (pages + kTasksPerThread * p.threads - 1) / (kTasksPerThread * p.threads);
  return round_up(std::max(wanted, kFewestPages), kBlockPages);
}

// One run of queries of a sequence, all heads.
void plan_queries(const Problem& p, Task task, int64_t split, Plan* plan) {
  const int64_t rows = task.queries * p.group;
  const int64_t each = std::clamp<int64_t>(kStateBytes / (rows * p.dv * 4), 1, p.heads);
  const int64_t seen = std::max<int64_t>(task.position + task.queries, 0);
  const int64_t end = (seen + kPage - 1) / kPage;
  const int64_t begin = first_token(p, task.position) / kPage / split * split;
  for (int64_t head = 0; head < p.heads; head += each) {
    task.head = head;
    task.heads = std::min(each, p.heads - head);
    Merge merge{task.query, task.queries, head * p.group, task.heads * p.group, plan->partials, 0};
    for (int64_t page = begin; page < end; page += split) {
      const int64_t start = std::max(page, first_token(p, task.position) / kBlock * kBlockPages);
      task.first_page = start;
      task.pages = std::min(page + split, end) - start;
      task.partial = plan->partials;
      plan->tasks.push_back(task);
      plan->partials += task.queries * merge.heads;
      ++merge.splits;
    }
    plan->merges.push_back(merge);
    plan->rows = std::max(plan->rows, rows);
    plan->heads = std::max(plan->heads, task.heads);
  }
}

Plan make_plan(const Problem& p) {
  Plan plan;
  const int64_t split = pages_of_split(p);
  for (int64_t i = 0; i < p.sequences; ++i) {
    const int64_t begin = p.cu_q.i32(i), end = p.cu_q.i32(i + 1), length = p.seq_lens.i32(i);
    // Which queries share a task must not show in their bits: alone they always meet the same arithmetic.
    const int64_t most = p.batch_invariant ? 1 : kMaxQueries;
    for (int64_t query = begin; query < end; query += most) {
      Task task{};
      task.sequence = i;
      task.length = length;
      task.query = query;
      task.queries = std::min(most, end - query);
      task.position = length - end + query;
      plan_queries(p, task, split, &plan);
    }
  }
  return plan;
}

template <class T>
T* place(char* base, int64_t offset) {
  return reinterpret_cast<T*>(base + offset);
}

// Lays a thread's scratch out from `base`; returns its bytes.
int64_t place_scratch(const Plan& plan, const Problem& p, char* base, Scratch* s) {
  Layout layout;
  const int64_t h = plan.heads, r = plan.rows;
  const int64_t dk = round_up(p.dk, 64), dv = round_up(p.dv, 64), wide = std::max(dk, dv);
  s->rows = r, s->dk = dk, s->dv = dv;
  const auto floats = [&](int64_t count) { return place<float>(base, layout.add(count * 4)); };
  s->q = floats(h * r * dk);
  s->packed = place<char>(base, layout.add(h * round_up(r, 16) * 2 * dk));
  s->sums = place<char>(base, layout.add(h * ((r + 7) / 8) * 1024));
  s->q_scale = floats(h * r);
  s->q_bias = place<int32_t>(base, layout.add(h * r * 4));
  s->o = floats(h * r * dv);
  s->top = floats(h * r);
  s->sum = floats(h * r);
  s->logits = floats(h * r * kBlock);
  s->weights = place<char>(base, layout.add(h * r * kBlock * 2));
  s->weight_scale = floats(h * r);
  s->tile = floats(kPage * wide);
  s->row = floats(wide);
  s->channel_k = floats(h * dk);
  s->channel_v = floats(h * dv);
  s->token_k = floats(h * kBlock);
  s->token_v = floats(h * kBlock);
  s->zero_v = floats(h * kBlock);
  s->page_scale = floats(dk);
  s->page_zero = floats(dk);
  s->first = place<int64_t>(base, layout.add(r * 8));
  s->last = place<int64_t>(base, layout.add(r * 8));
  return layout.size();
}

void store(const Plane& out, int64_t query, int64_t head, const float* values, int64_t n) {
  char* base = const_cast<char*>(out.at(query, head));
  for (int64_t c = 0; c < n; ++c) {
    char* at = base + c * out.step[2];
    if (out.dtype == TW_FP32) {
      __builtin_memcpy(at, values + c, 4);
    } else {
      const uint16_t half = out.dtype == TW_BF16 ? float_to_bf16(values[c]) : float_to_fp16(values[c]);
      __builtin_memcpy(at, &half, 2);
    }
  }
}

// One row of a merge: results of its splits, weighted by how far their largest logits lie below the largest
// of all. A split in which the row saw nothing does not take part, so that it does not show in the bits
// either.
void merge_row(const Problem& p, const Merge& m, const Partials& part, int64_t row, float* o) {
  const int64_t stride = m.queries * m.heads;
  const auto empty = [&](int64_t at) { return part.top[at] == -INFINITY && part.sum[at] == 0.0f; };
  float top = -INFINITY;
  bool any = false;
  for (int64_t s = 0, at = m.partial + row; s < m.splits; ++s, at += stride) {
    top = std::max(top, part.top[at]);
    any = any || !empty(at);
  }
  const float base = top == -INFINITY ? 0.0f : top;
  float sum = 0.0f;
  std::fill(o, o + p.dv, 0.0f);
  for (int64_t s = 0, at = m.partial + row; s < m.splits; ++s, at += stride) {
    if (empty(at)) continue;
    const float weight = static_cast<float>(std::exp2(static_cast<double>(part.top[at] - base)));
    const float* values = part.o + at * part.dv;
    sum += weight * part.sum[at];
    for (int64_t c = 0; c < p.dv; ++c) o[c] += weight * values[c];
  }
  if (any) {
    for (int64_t c = 0; c < p.dv; ++c) o[c] /= sum;
  }
  const int64_t query = m.query + row / m.heads, head = m.head + row % m.heads;
  store(p.o, query, head, o, p.dv);
  if (p.lse.data == nullptr) return;
  const double lse = (base + std::log2(static_cast<double>(sum))) * 0.69314718055994530942;
  const float value = any ? static_cast<float>(lse) : -INFINITY;
  __builtin_memcpy(const_cast<char*>(p.lse.at(query, head)), &value, 4);
}

}  // namespace

void run(const Problem& p, const KernelTable& kernels) {
  const Plan plan = make_plan(p);
  if (plan.merges.empty()) return;
  const int count =
      static_cast<int>(std::clamp<int64_t>(static_cast<int64_t>(plan.tasks.size()), 1, p.threads));
  Scratch sized;
  const int64_t each = place_scratch(plan, p, nullptr, &sized);
  Layout layout;
  const int64_t scratch = layout.add(each * count), room = layout.add(p.threads * p.dv * 4);
  const int64_t o = layout.add(plan.partials * p.dv * 4), top = layout.add(plan.partials * 4);
  const int64_t sum = layout.add(plan.partials * 4);
  static thread_local Workspace workspace;
  char* base = workspace.get(layout.size());
  if (base == nullptr) throw std::bad_alloc();
  const Partials partials{place<float>(base, o), place<float>(base, top), place<float>(base, sum), p.dv};
  std::atomic<size_t> next{0};
  auto work = [&](int index, int) {
    Scratch own;
    place_scratch(plan, p, base + scratch + index * each, &own);
    for (size_t i = next++; i < plan.tasks.size(); i = next++)
      kernels.attend(p, plan.tasks[i], own, partials);
  };
  run_tasks(count, work);
  parallel_for(static_cast<int64_t>(plan.merges.size()), p.threads,
               [&](int64_t begin, int64_t end, int index) {
                 for (int64_t i = begin; i < end; ++i) {
                   const Merge& m = plan.merges[static_cast<size_t>(i)];
                   for (int64_t row = 0; row < m.queries * m.heads; ++row) {
                     merge_row(p, m, partials, row, place<float>(base, room) + index * p.dv);
                   }
                 }
               });
}

}  // namespace tw::paged
