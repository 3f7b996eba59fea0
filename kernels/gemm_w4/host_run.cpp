// Rows are staged once as the level wants them; threads share the panels. Weights that are not packed are
// packed a few panels at a time, into memory of their thread, for all rows that are staged.
#include "gemm_w4/host_run.hpp"

#include <algorithm>

#include "_host/half.hpp"
#include "_host/thread_pool.hpp"
#include "_host/workspace.hpp"

namespace tw::gemm_w4 {

namespace {

constexpr int64_t kMacsPerThread = 1 << 17;
constexpr int64_t kElementBytes[] = {4, 2, 2, 1};  // of activations, by Kind
constexpr int64_t kChunkRows = 192;   // of staged rows, which then stay in the second level of cache
constexpr int64_t kReadRows = 16;     // that tile registers read at once
constexpr int64_t kSharedChunks = 4;  // chunks of many rows that share a step of packed panels
constexpr int64_t kRowPad = 64;       // keeps rows of 2^n bytes out of the same cache sets

float get(const tw_tensor& t, int64_t offset) {
  const char* at = element(t, offset);
  if (t.dtype == TW_FP32) return *reinterpret_cast<const float*>(at);
  if (t.dtype == TW_INT8) return static_cast<float>(*reinterpret_cast<const int8_t*>(at));
  const uint16_t bits = *reinterpret_cast<const uint16_t*>(at);
  return t.dtype == TW_BF16 ? bf16_to_float(bits) : fp16_to_float(bits);
}

// Where k of a word of eight lies among pairs.
constexpr int64_t kPairOrder[8] = {0, 2, 1, 3, 4, 6, 5, 7};

// The nibbles of eight codes in order, as a word of a panel.
uint32_t panel_word(uint32_t w) {
  auto spread = [](uint32_t half) {
    half = (half | half << 8) & 0x00ff00ffu;
    return (half | half << 4) & 0x0f0f0f0fu;
  };
  return spread(w & 0xffffu) | spread(w >> 16) << 4;
}

// Memory of one thread, as offsets.
struct Scratch {
  int64_t row;                          // a row on its way to where it is staged
  int64_t room;                         // of a Job
  int64_t codes, scale, zero, minimum;  // packed panels
};

class Runner {
 public:
  explicit Runner(const Problem& p)
      : p_(p),
        many_(are_many(p)),
        bytes_(many_ ? 0 : p.kernels->bytes[p.kind]),
        words_(round_up(p.k, kBlock) / kWordCodes),
        panels_((p.n + kPanelCols - 1) / kPanelCols),
        a_bytes_(words_ * kWordCodes * staged_bytes(p) + kRowPad),
        step_(many_ ? kManyPanels : p.kernels->panels),
        element_(kElementBytes[p.kind]) {}

  bool run(Workspace& workspace) {
    const int64_t most = !many_ ? kChunkRows : p_.prepacked ? kManyRows : kSharedChunks * kManyRows;
    const int64_t chunk = std::min(p_.m, most), padded = round_up(chunk, kReadRows);
    const int64_t threads = std::max(staging_threads(chunk), panel_threads(chunk));
    thread_bytes_ = lay_out_thread();
    Layout layout;
    const int64_t a = layout.add(padded * a_bytes_), sums = layout.add(padded * p_.groups * 4),
                  factors = layout.add(padded * p_.groups * 4), wholes = layout.add(padded * p_.groups * 8),
                  scale = layout.add(padded * 4), bias = layout.add(panels_ * kPanelCols * 4),
                  of_threads = layout.add(threads * thread_bytes_);
    char* room = workspace.get(layout.size());
    if (room == nullptr) return false;
    a_ = room + a;
    sums_ = reinterpret_cast<float*>(room + sums);
    factors_ = reinterpret_cast<float*>(room + factors);
    wholes_ = reinterpret_cast<int32_t*>(room + wholes);
    row_scale_ = reinterpret_cast<float*>(room + scale);
    bias_ = reinterpret_cast<float*>(room + bias);
    of_threads_ = room + of_threads;
    for (int64_t i = 0; p_.bias != nullptr && i < panels_ * kPanelCols; ++i) {
      bias_[i] = i < p_.n ? get(*p_.bias, i * p_.bias->stride[0]) : 0.0f;
    }
    for (int64_t row = 0; row < p_.m; row += chunk) run_rows(row, std::min(chunk, p_.m - row));
    return true;
  }

 private:
  // Sums of floats have an order of their own there, so batch_invariant leaves no choice.
  static bool are_many(const Problem& p) {
    const int least = p.kernels->many_least[p.kind];
    return least > 0 && (p.m >= least || (p.batch_invariant && p.kind != kI8));
  }

  // Of an element.
  int64_t staged_bytes(const Problem& p) const {
    return many_ ? p.kernels->many_bytes[p.kind] : bytes_ > 0 ? bytes_ : 2;
  }

  int threads_for(int64_t tasks, int64_t macs) const {
    return static_cast<int>(std::clamp<int64_t>(std::min(tasks, macs / kMacsPerThread), 1, p_.threads));
  }

  int64_t panel_units() const { return (panels_ + p_.kernels->panels - 1) / p_.kernels->panels; }
  int staging_threads(int64_t rows) const { return threads_for(rows, 16 * rows * p_.k); }
  int panel_threads(int64_t rows) const { return threads_for(panel_units(), rows * p_.n * p_.k); }

  // What a thread needs: tasks must not throw, so none of them asks for memory.
  int64_t lay_out_thread() {
    Layout layout;
    at_.row = layout.add(p_.k * element_ + kRowEnd);
    at_.room = layout.add(many_ ? kManyRoom : 0);
    const int64_t codes = p_.prepacked ? 0 : step_ * words_ * kPanelCols,
                  groups = p_.prepacked ? 0 : step_ * p_.groups * kPanelCols;
    at_.codes = layout.add(codes * 4);
    at_.scale = layout.add(groups * 2);
    at_.zero = layout.add(p_.zeros == nullptr ? 0 : groups);
    at_.minimum = layout.add(p_.minima == nullptr ? 0 : groups * 2);
    return layout.size();
  }

  void run_rows(int64_t row, int64_t rows) {
    parallel_for(rows, staging_threads(rows), [&](int64_t begin, int64_t end, int index) {
      char* const room = of_threads_ + index * thread_bytes_ + at_.row;
      for (int64_t i = begin; i < end; ++i) stage(row + i, i, room);
    });
    const int64_t padded = round_up(rows, kReadRows);
    std::fill(a_ + rows * a_bytes_, a_ + padded * a_bytes_, char{0});
    std::fill(sums_ + rows * p_.groups, sums_ + padded * p_.groups, 0.0f);
    const int64_t unit = p_.kernels->panels;
    parallel_for(panel_units(), panel_threads(rows), [&](int64_t begin, int64_t end, int index) {
      run_panels(row, rows, begin * unit, std::min(end * unit, panels_), of_threads_ + index * thread_bytes_);
    });
  }

  // Row `row` of A becomes row `to` of what is staged.
  void stage(int64_t row, int64_t to, char* room) {
    if (p_.row_scale != nullptr) row_scale_[to] = get(*p_.row_scale, row * p_.row_scale->stride[0]);
    if (element_ == 1) copy_row(*p_.a, row, room);
    if (element_ == 2) copy_row(*p_.a, row, reinterpret_cast<uint16_t*>(room));
    if (element_ == 4) copy_row(*p_.a, row, reinterpret_cast<uint32_t*>(room));
    std::fill_n(room + p_.k * element_, kRowEnd, char{0});
    float* const sums = sums_ + to * p_.groups;
    const StageRow job{.from = room,
                       .kind = p_.kind,
                       .element = element_,
                       .k = p_.k,
                       .to = a_ + to * a_bytes_,
                       .part_bytes = words_ * kWordCodes * 2,
                       .group = p_.group,
                       .wholes = wholes_ + 2 * to * p_.groups,
                       .factors = factors_ + to * p_.groups,
                       .sums = sums};
    if (bytes_ > 0) return p_.kernels->stage_bytes(job);
    float factor = 1.0f;
    if (many_) {
      factor = p_.kernels->stage_many(job);
      if (p_.row_scale == nullptr) row_scale_[to] = 1.0f / factor;
    } else {
      stage_pairs(reinterpret_cast<const uint16_t*>(room), reinterpret_cast<uint16_t*>(job.to));
    }
    if (p_.zero == kMin && !(many_ && p_.kernels->many_whole)) sum_groups(row, factor, sums);
  }

  // Elements of a row, one after the other.
  template <class T>
  void copy_row(const tw_tensor& a, int64_t row, T* to) const {
    if (p_.k == 0) return;
    const T* x = reinterpret_cast<const T*>(a.data) + row * a.stride[0];
    const int64_t step = a.stride[1];
    if (step == 1) {
      std::copy_n(x, p_.k, to);
    } else {
      for (int64_t k = 0; k < p_.k; ++k) to[k] = x[k * step];
    }
  }

  // `from` is followed by zeros.
  void stage_pairs(const uint16_t* from, uint16_t* to) const {
    for (int64_t k = 0; k < words_ * kWordCodes; k += kWordCodes) {
      for (int64_t i = 0; i < kWordCodes; ++i) to[k + kPairOrder[i]] = from[k + i];
    }
  }

  void sum_groups(int64_t row, float factor, float* sums) const {
    const tw_tensor& a = *p_.a;
    const int64_t from = row * a.stride[0], step = a.stride[1];
    for (int64_t g = 0; g < p_.groups; ++g) {
      const int64_t begin = g * p_.group, end = std::min(begin + p_.group, p_.k);
      if (p_.kind == kI8 && step == 1) {
        const auto* x = reinterpret_cast<const int8_t*>(a.data) + from;
        int32_t sum = 0;
        for (int64_t k = begin; k < end; ++k) sum += x[k];
        sums[g] = static_cast<float>(sum);
        continue;
      }
      float sum = 0.0f;
      for (int64_t k = begin; k < end; ++k) sum += get(a, from + k * step);
      sums[g] = sum * factor;
    }
  }

  // Panels [begin, end) of staged rows, with the memory of a thread.
  void run_panels(int64_t row, int64_t rows, int64_t begin, int64_t end, char* room) const {
    Job job{};
    job.a_bytes = a_bytes_;
    job.part_bytes = words_ * kWordCodes * 2;
    job.c_row = p_.c.row_stride;
    job.c_col = p_.c.col_stride;
    job.words = words_;
    job.groups = p_.groups;
    job.group_words = p_.group / kWordCodes;
    job.kind_of_zero = p_.zero;
    job.out = p_.out;
    job.room = room + at_.room;
    if (many_) std::fill_n(job.room, kManyRoom, char{0});
    const int64_t step = p_.prepacked ? end - begin : step_;
    for (int64_t panel = begin; panel < end; panel += step) {
      job.panels = std::min(step, end - panel);
      const int64_t col = panel * kPanelCols;
      job.cols = std::min(p_.n - col, job.panels * kPanelCols);
      job.bias = p_.bias == nullptr ? nullptr : bias_ + col;
      if (p_.prepacked) {
        use_packed(panel, &job);
      } else {
        pack(panel, room, &job);
      }
      run_chunks(row, rows, col, &job);
    }
  }

  // The panels of a job with all staged rows, as many at a time as it takes.
  void run_chunks(int64_t row, int64_t rows, int64_t col, Job* job) const {
    const int64_t most = many_ ? kManyRows : rows;
    for (int64_t first = 0; first < rows; first += most) {
      job->a = a_ + first * a_bytes_;
      job->sums = sums_ + first * p_.groups;
      job->factors = factors_ + first * p_.groups;
      job->wholes = wholes_ + 2 * first * p_.groups;
      job->rows = std::min(most, rows - first);
      job->row_scale = p_.row_scale == nullptr && !many_ ? nullptr : row_scale_ + first;
      job->c = p_.c.data + ((row + first) * job->c_row + col * job->c_col) * (p_.out == kOutF32 ? 4 : 2);
      (many_ ? p_.kernels->run_many : p_.kernels->run)[p_.kind](*job);
    }
  }

  template <class T>
  static void point(const tw_tensor* t, int64_t panel, const T** at, int64_t* step) {
    if (t == nullptr || t->data == nullptr) return;
    *step = t->stride[0];
    *at = reinterpret_cast<const T*>(element(*t, panel * t->stride[0]));
  }

  void use_packed(int64_t panel, Job* job) const {
    if (p_.b->data != nullptr) job->codes = element(*p_.b, panel * p_.b->stride[0]);
    job->codes_bytes = p_.b->stride[0] * 4;
    point(p_.scale, panel, &job->scale, &job->scale_step);
    point(p_.zeros, panel, &job->zero, &job->zero_step);
    point(p_.minima, panel, &job->minimum, &job->minimum_step);
  }

  // [N,G] to [panel][G][16].
  template <class T>
  void pack_groups(const tw_tensor* t, int64_t panel, int64_t panels, char* room, const T** at,
                   int64_t* step) const {
    if (t == nullptr) return;
    T* const to = reinterpret_cast<T*>(room);
    *step = p_.groups * kPanelCols;
    std::fill_n(to, panels * *step, T{0});
    *at = to;
    const int64_t first = panel * kPanelCols, count = std::min(panels * kPanelCols, p_.n - first);
    for (int64_t i = 0; i < count; ++i) {
      T* out = to + i / kPanelCols * *step + i % kPanelCols;
      for (int64_t g = 0; g < p_.groups; ++g) {
        const char* x = element(*t, (first + i) * t->stride[0] + g * t->stride[1]);
        out[g * kPanelCols] = *reinterpret_cast<const T*>(x);
      }
    }
  }

  void pack(int64_t panel, char* room, Job* job) const {
    const int64_t size = words_ * kPanelCols, given = (p_.k + kWordCodes - 1) / kWordCodes;
    auto* const codes = reinterpret_cast<uint32_t*>(room + at_.codes);
    std::fill_n(codes, job->panels * size, 0u);
    job->codes = room + at_.codes;
    job->codes_bytes = size * 4;
    for (int64_t i = 0; i < job->cols; ++i) {
      uint32_t* out = codes + i / kPanelCols * size + i % kPanelCols;
      const int64_t from = (panel * kPanelCols + i) * p_.b->stride[0];
      for (int64_t w = 0; w < given; ++w) {
        const char* x = element(*p_.b, from + w * p_.b->stride[1]);
        out[w * kPanelCols] = panel_word(*reinterpret_cast<const uint32_t*>(x));
      }
    }
    pack_groups(p_.scale, panel, job->panels, room + at_.scale, &job->scale, &job->scale_step);
    pack_groups(p_.zeros, panel, job->panels, room + at_.zero, &job->zero, &job->zero_step);
    pack_groups(p_.minima, panel, job->panels, room + at_.minimum, &job->minimum, &job->minimum_step);
  }

  const Problem& p_;
  const bool many_;
  const int64_t bytes_;  // of a staged element, 0 where it is something else
  const int64_t words_, panels_, a_bytes_;
  const int64_t step_;  // panels that are packed at a time
  const int64_t element_;
  Scratch at_{};
  int64_t thread_bytes_ = 0;
  char *a_ = nullptr, *of_threads_ = nullptr;
  float *sums_ = nullptr, *factors_ = nullptr, *row_scale_ = nullptr, *bias_ = nullptr;
  int32_t* wholes_ = nullptr;
};

}  // namespace

bool run(const Problem& p) {
  if (p.m == 0 || p.n == 0) return true;
  thread_local Workspace workspace;
  const bool done = Runner(p).run(workspace);
  workspace.trim(kKeptScratchBytes);
  return done;
}

}  // namespace tw::gemm_w4
