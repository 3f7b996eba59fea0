// The largest logits of rows, or the next continuations of groups of beams, on the CPU: threads over blocks
// of logits, then over rows, then over groups.
#include <algorithm>
#include <cmath>
#include <new>
#include <numbers>
#include <vector>

#include "_host/cpu.hpp"
#include "_host/export.hpp"
#include "_host/half.hpp"
#include "_host/levels.hpp"
#include "_host/thread_pool.hpp"
#include "beam_topk/host_problem.hpp"

TW_LEVELS(beam_topk, KernelTable)

namespace tw::beam_topk {

namespace {

// Below this many logits waking a thread costs more than it saves: some microseconds of exponentials, or of
// comparisons alone.
constexpr int64_t kWeighedAThread = 24576, kComparedAThread = 65536;

// The best of one row, in order.
struct Best {
  int64_t count;
  float largest;
  double sum;  // of 2^(scale * (x - largest)) over the row
  Candidate found[kMostResults];
};

float float_at(const tw_tensor& t, int64_t offset) {
  return *reinterpret_cast<const float*>(element(t, offset));
}

bool lowest(float v) { return !(v > kLowest); }

class Run {
 public:
  Run(const Problem& problem, const KernelTable& kernels, int threads)
      : p_(problem),
        kernels_(kernels),
        threads_(threads),
        blocks_((problem.vocabulary + kBlock - 1) / kBlock),
        scale_(static_cast<float>(problem.unit * std::numbers::log2e)),
        largest_(static_cast<size_t>(problem.rows * blocks_)),
        sums_(largest_.size()),
        best_(static_cast<size_t>(problem.rows)) {}

  void run() {
    parallel_for(p_.rows * blocks_,
                 spread(p_.rows * p_.vocabulary, p_.whole_row ? kWeighedAThread : kComparedAThread),
                 [&](int64_t begin, int64_t end, int) {
                   for (int64_t i = begin; i < end; ++i) scan(i / blocks_, i % blocks_);
                 });
    parallel_for(p_.rows, spread(p_.rows * (blocks_ + p_.results * kBlock), kWeighedAThread),
                 [&](int64_t begin, int64_t end, int) {
                   for (int64_t row = begin; row < end; ++row) choose(row);
                 });
    if (p_.scores != nullptr) {
      for (int64_t group = 0; group < p_.groups; ++group) step(group);
    } else {
      for (int64_t row = 0; row < p_.rows; ++row) write(row);
    }
  }

 private:
  int spread(int64_t logits, int64_t a_thread) const {
    return static_cast<int>(std::clamp<int64_t>(logits / a_thread, 1, threads_));
  }

  float score(int64_t row) const {
    const tw_tensor& t = *p_.scores;
    return std::min(float_at(t, row / p_.beams * t.stride[0] + row % p_.beams * t.stride[1]), kLargest);
  }

  bool ended(int64_t row) const {
    if (p_.finished == nullptr) return false;
    const tw_tensor& t = *p_.finished;
    return *element(t, row / p_.beams * t.stride[0] + row % p_.beams * t.stride[1]) != 0;
  }

  // Whether no logit of a row counts: all of it is -inf, or its beam has ended or cannot be gone on with.
  bool skipped(int64_t row) const {
    if (p_.row_max != nullptr && lowest(float_at(*p_.row_max, row * p_.row_max->stride[0]))) return true;
    return p_.scores != nullptr && (ended(row) || lowest(score(row)));
  }

  // The logits of a block, contiguous; `room` is used where they are not.
  const void* block(int64_t row, int64_t index, char* room) const {
    const tw_tensor& t = *p_.logits;
    const int64_t first = row * t.stride[0] + index * kBlock * t.stride[1], size = dtype_size(t.dtype);
    if (t.stride[1] == 1 || p_.vocabulary == 1) return element(t, first);
    for (int64_t i = 0; i < length(index); ++i) {
      std::copy_n(element(t, first + i * t.stride[1]), size, room + i * size);
    }
    return room;
  }

  int64_t length(int64_t index) const { return std::min(kBlock, p_.vocabulary - index * kBlock); }

  void scan(int64_t row, int64_t index) {
    if (skipped(row)) return;
    alignas(64) char room[kBlock * sizeof(float)];
    const auto at = static_cast<size_t>(row * blocks_ + index);
    kernels_.scan[p_.kind](block(row, index, room), length(index), p_.whole_row ? scale_ : 0.0f,
                           &largest_[at], &sums_[at]);
  }

  // What the `count`th largest logit is not below: so many blocks have one as large.
  static float bound(const float* largest, int64_t blocks, int64_t count) {
    if (blocks < count || count == 0) return kLowest;
    std::vector<float> sorted(largest, largest + blocks);
    std::nth_element(sorted.begin(), sorted.begin() + (count - 1), sorted.end(), std::greater<>());
    return sorted[static_cast<size_t>(count - 1)];
  }

  void choose(int64_t row) {
    Best& best = best_[static_cast<size_t>(row)];
    best.count = 0;
    if (skipped(row)) return;
    const float* largest = largest_.data() + row * blocks_;
    best.largest = blocks_ == 0 ? kLowest : *std::max_element(largest, largest + blocks_);
    if (best.largest == kLowest) return;
    if (p_.whole_row) {
      best.sum = kernels_.combine(largest, sums_.data() + row * blocks_, blocks_, best.largest, scale_);
    }
    Kept kept;
    kept.capacity = std::min(p_.results * (p_.coarse ? 2 : 1), p_.vocabulary);
    kept.count = 0;
    kept.coarse = p_.coarse;
    kept.largest = best.largest;
    if (kept.capacity == 0) return;
    collect(row, &kept);
    if (p_.coarse) {
      std::sort(kept.found, kept.found + kept.count, [](const Candidate& a, const Candidate& b) {
        return a.value != b.value ? a.value > b.value : a.id < b.id;
      });
    }
    best.count = std::min(kept.count, p_.results);
    std::copy_n(kept.found, best.count, best.found);
  }

  void collect(int64_t row, Kept* kept) const {
    const float* largest = largest_.data() + row * blocks_;
    float least = bound(largest, blocks_, kept->capacity);
    // Of one code are logits up to a step apart, and the difference from the largest rounds.
    if (kept->coarse && least > kLowest) {
      least -= 0.07f + (std::fabs(kept->largest) + std::fabs(least)) * 0x1p-20f;
      // All that lies a window or more below the largest has one code.
      if (!(kept->largest - least < 15.9f)) least = kLowest;
    }
    alignas(64) char room[kBlock * sizeof(float)];
    for (int64_t i = 0; i < blocks_; ++i) {
      if (largest[i] < least || largest[i] == kLowest) continue;
      const bool full = !kept->coarse && kept->count == kept->capacity;
      const float last = full ? kept->found[kept->count - 1].key : kLowest;
      if (full && largest[i] <= last) continue;
      kernels_.collect[p_.kind](block(row, i, room), length(i), i * kBlock, std::max(least, last), kept);
    }
  }

  double log_of_sum(const Best& best) const { return best.count != 0 ? std::log(best.sum) : 0.0; }

  double below(const Best& best, int64_t i) const {
    return (static_cast<double>(best.found[i].value) - best.largest) * p_.unit;
  }

  bool is_lowest(int64_t row, int64_t id) const {
    if (skipped(row)) return true;
    const tw_tensor& t = *p_.logits;
    const char* at = element(t, row * t.stride[0] + id * t.stride[1]);
    if (t.dtype == TW_INT8) return false;
    if (t.dtype == TW_FP32) return lowest(*reinterpret_cast<const float*>(at));
    const uint16_t bits = *reinterpret_cast<const uint16_t*>(at);
    return lowest(t.dtype == TW_BF16 ? bf16_to_float(bits) : fp16_to_float(bits));
  }

  template <class T>
  static void put(const tw_tensor& t, int64_t row, int64_t col, T value) {
    *reinterpret_cast<T*>(element(t, row * t.stride[0] + col * t.stride[1])) = value;
  }

  void write(int64_t row) const {
    const Best& best = best_[static_cast<size_t>(row)];
    double sum = best.sum;
    if (!p_.whole_row) {
      sum = 0.0;
      for (int64_t i = 0; i < best.count; ++i) sum += std::exp(below(best, i));
    }
    for (int64_t i = 0; i < best.count; ++i) {
      put(*p_.first, row, i, static_cast<int32_t>(best.found[i].id));
      put(*p_.second, row, i, static_cast<float>(std::exp(below(best, i)) / sum));
    }
    int64_t id = 0;
    for (int64_t i = best.count; i < p_.results; ++i, ++id) {
      while (!is_lowest(row, id)) ++id;
      put(*p_.first, row, i, static_cast<int32_t>(id));
      put(*p_.second, row, i, 0.0f);
    }
  }

  // The score of a beam's next continuation that is not used yet; -inf where it has none.
  double next(int64_t row, int64_t used) const {
    if (lowest(score(row))) return kLowest;
    if (ended(row)) return used == 0 ? static_cast<double>(score(row)) : static_cast<double>(kLowest);
    const Best& best = best_[static_cast<size_t>(row)];
    return used < best.count ? score(row) + below(best, used) - log_of_sum(best)
                             : static_cast<double>(kLowest);
  }

  void put_next(int64_t group, int64_t at, int64_t beam, int64_t id, double value) const {
    put(*p_.first, group, at, static_cast<int32_t>(beam));
    put(*p_.second, group, at, static_cast<int32_t>(id));
    put(*p_.next_score, group, at, static_cast<float>(value));
  }

  // Merges the beams of a group; each one's continuations are in order already.
  void step(int64_t group) const {
    std::vector<int64_t> used(static_cast<size_t>(p_.beams));
    std::vector<double> heads(used.size());
    const int64_t row = group * p_.beams;
    for (int64_t beam = 0; beam < p_.beams; ++beam) heads[static_cast<size_t>(beam)] = next(row + beam, 0);
    int64_t at = 0;
    for (; at < p_.results; ++at) {
      const auto best = std::max_element(heads.begin(), heads.end());
      if (best == heads.end() || *best == kLowest) break;
      const int64_t beam = best - heads.begin();
      int64_t& taken = used[static_cast<size_t>(beam)];
      const int64_t id = ended(row + beam) ? p_.eos : best_[static_cast<size_t>(row + beam)].found[taken].id;
      put_next(group, at, beam, id, *best);
      *best = next(row + beam, ++taken);
    }
    fill(group, at);
  }

  // What no continuation is left for: beams and ids of score -inf, in order.
  void fill(int64_t group, int64_t at) const {
    for (int64_t beam = 0; beam < p_.beams && at < p_.results; ++beam) {
      const int64_t row = group * p_.beams + beam;
      const bool goes_on = !lowest(score(row));
      for (int64_t id = 0; id < p_.vocabulary && at < p_.results; ++id) {
        const bool none = ended(row) ? !goes_on || id != p_.eos : is_lowest(row, id);
        if (none) put_next(group, at++, beam, id, kLowest);
      }
    }
  }

  const Problem& p_;
  const KernelTable& kernels_;
  const int threads_;
  const int64_t blocks_;
  const float scale_;
  std::vector<float> largest_, sums_;
  std::vector<Best> best_;
};

int beam_topk(const Call& call) {
  Level level;
  if (!current_level(&level)) return call.refuse("%s", level_error());
  Problem p{};
  if (!read(call, &p)) return TW_REFUSED;
  if (p.rows == 0 || p.results == 0) return TW_OK;
  try {
    Run(p, kernels_of(level), resolve_threads(call.threads())).run();
  } catch (const std::bad_alloc&) {
    return call.fail("no memory for the best of %lld rows", static_cast<long long>(p.rows));
  }
  return TW_OK;
}

}  // namespace
}  // namespace tw::beam_topk

TW_EXPORT int tw_host_beam_topk(const tw_call* call) { return tw::beam_topk::beam_topk(tw::Call(*call)); }
