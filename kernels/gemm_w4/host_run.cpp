// Rows are staged once as the level wants them; threads share the panels. Weights that are not packed are
// packed a few panels at a time, into memory of their thread.
#include "gemm_w4/host_run.hpp"

#include <algorithm>
#include <vector>

#include "_host/half.hpp"
#include "_host/thread_pool.hpp"
#include "_host/workspace.hpp"

namespace tw::gemm_w4 {

namespace {

constexpr int64_t kMacsPerThread = 1 << 17;
constexpr int64_t kChunkRows = 192;  // of staged rows, which then stay in the second level of cache
constexpr int64_t kTileRows = 16;    // levels with tile registers read this many rows at once
constexpr int64_t kRowPad = 64;      // keeps rows of 2^n bytes out of the same cache sets

float get(const tw_tensor& t, int64_t offset) {
  const char* at = element(t, offset);
  if (t.dtype == TW_FP32) return *reinterpret_cast<const float*>(at);
  if (t.dtype == TW_INT8) return static_cast<float>(*reinterpret_cast<const int8_t*>(at));
  const uint16_t bits = *reinterpret_cast<const uint16_t*>(at);
  return t.dtype == TW_BF16 ? bf16_to_float(bits) : fp16_to_float(bits);
}

// Where k of a word of eight lies in a staged row.
constexpr int64_t kPairOrder[8] = {0, 2, 1, 3, 4, 6, 5, 7};
int64_t staged_at(Stage stage, int64_t k) { return stage == kPairs16 ? k / 8 * 8 + kPairOrder[k % 8] : k; }

// Half i of the pairs is k = 0, 2, 1, 3, 4, 6, 5, 7, and so is the way back.
static_assert(kPairOrder[kPairOrder[1]] == 1 && kPairOrder[kPairOrder[5]] == 5);

// The nibbles of eight codes in order, as a word of a panel.
uint32_t panel_word(uint32_t w) {
  auto spread = [](uint32_t half) {
    half = (half | half << 8) & 0x00ff00ffu;
    return (half | half << 4) & 0x0f0f0f0fu;
  };
  return spread(w & 0xffffu) | spread(w >> 16) << 4;
}

struct Scratch {
  std::vector<char> unpacked;
  std::vector<uint32_t> codes;
  std::vector<uint16_t> scale, minimum;
  std::vector<uint8_t> zero;
};

class Runner {
 public:
  explicit Runner(const Problem& p)
      : p_(p),
        stage_(p.kernels->stage[p.kind]),
        words_(round_up(p.k, kBlock) / kWordCodes),
        panels_((p.n + kPanelCols - 1) / kPanelCols),
        a_bytes_(words_ * kWordCodes * stage_bytes(stage_) + kRowPad) {}

  bool run(Workspace& workspace) {
    const int64_t chunk = std::min(p_.m, kChunkRows);
    Layout layout;
    const int64_t a = layout.add(round_up(chunk, kTileRows) * a_bytes_),
                  sums = layout.add(chunk * p_.groups * 4), scale = layout.add(chunk * 4),
                  bias = layout.add(panels_ * kPanelCols * 4);
    char* room = workspace.get(layout.size());
    if (room == nullptr) return false;
    a_ = room + a;
    sums_ = reinterpret_cast<float*>(room + sums);
    row_scale_ = reinterpret_cast<float*>(room + scale);
    bias_ = reinterpret_cast<float*>(room + bias);
    for (int64_t i = 0; p_.bias != nullptr && i < panels_ * kPanelCols; ++i) {
      bias_[i] = i < p_.n ? get(*p_.bias, i * p_.bias->stride[0]) : 0.0f;
    }
    for (int64_t row = 0; row < p_.m; row += chunk) run_rows(row, std::min(chunk, p_.m - row));
    return true;
  }

 private:
  bool wants_sums() const { return p_.zero == kMin || p_.kernels->needs_sums[p_.kind]; }

  int threads_for(int64_t macs) const {
    return static_cast<int>(std::clamp<int64_t>(macs / kMacsPerThread, 1, p_.threads));
  }

  void run_rows(int64_t row, int64_t rows) {
    parallel_for(rows, threads_for(16 * rows * p_.k), [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) stage_row(row + i, i);
    });
    std::fill(a_ + rows * a_bytes_, a_ + round_up(rows, kTileRows) * a_bytes_, char{0});
    const int64_t unit = p_.kernels->panels, units = (panels_ + unit - 1) / unit;
    parallel_for(units, threads_for(rows * p_.n * p_.k), [&](int64_t begin, int64_t end, int) {
      run_panels(row, rows, begin * unit, std::min(end * unit, panels_));
    });
  }

  void stage_row(int64_t row, int64_t to) {
    char* at = a_ + to * a_bytes_;
    const tw_tensor& a = *p_.a;
    const int64_t from = row * a.stride[0], step = a.stride[1], padded = words_ * kWordCodes;
    if (stage_ == kFloats) {
      auto* out = reinterpret_cast<float*>(at);
      for (int64_t k = 0; k < p_.k; ++k) out[k] = get(a, from + k * step);
      std::fill(out + p_.k, out + padded, 0.0f);
    } else if (stage_ == kBytes) {
      const auto* x = reinterpret_cast<const int8_t*>(a.data) + from;
      auto* out = reinterpret_cast<int8_t*>(at);
      for (int64_t k = 0; k < p_.k; ++k) out[k] = x[k * step];
      std::fill(out + p_.k, out + padded, int8_t{0});
    } else {
      stage_pairs(a, from, step, reinterpret_cast<uint16_t*>(at), padded);
    }
    if (p_.row_scale != nullptr) row_scale_[to] = get(*p_.row_scale, row * p_.row_scale->stride[0]);
    if (wants_sums()) sum_groups(a, from, step, sums_ + to * p_.groups);
  }

  void stage_pairs(const tw_tensor& a, int64_t from, int64_t step, uint16_t* out, int64_t padded) const {
    std::fill(out, out + padded, uint16_t{0});
    for (int64_t k = 0; k < p_.k; ++k) {
      const char* x = element(a, from + k * step);
      out[staged_at(stage_, k)] = a.dtype == TW_INT8
                                      ? static_cast<uint16_t>(int16_t{*reinterpret_cast<const int8_t*>(x)})
                                      : *reinterpret_cast<const uint16_t*>(x);
    }
  }

  void sum_groups(const tw_tensor& a, int64_t from, int64_t step, float* sums) const {
    for (int64_t g = 0; g < p_.groups; ++g) {
      const int64_t end = std::min((g + 1) * p_.group, p_.k);
      float sum = 0.0f;
      for (int64_t k = g * p_.group; k < end; ++k) sum += get(a, from + k * step);
      sums[g] = sum;
    }
  }

  void run_panels(int64_t row, int64_t rows, int64_t begin, int64_t end) const {
    Job job{};
    job.a = a_;
    job.a_bytes = a_bytes_;
    job.sums = wants_sums() ? sums_ : nullptr;
    job.rows = rows;
    job.row_scale = p_.row_scale == nullptr ? nullptr : row_scale_;
    job.c_row = p_.c.row_stride;
    job.c_col = p_.c.col_stride;
    job.words = words_;
    job.groups = p_.groups;
    job.group_words = p_.group / kWordCodes;
    job.kind_of_zero = p_.zero;
    job.out = p_.out;
    job.batch_invariant = p_.batch_invariant || p_.m >= 4;
    Scratch scratch;
    scratch.unpacked.resize(static_cast<size_t>(words_ * 4 * kWordBytes + kAlign));
    job.room =
        scratch.unpacked.data() + (-reinterpret_cast<intptr_t>(scratch.unpacked.data()) & (kAlign - 1));
    const int64_t step = p_.prepacked ? end - begin : p_.kernels->panels;
    for (int64_t panel = begin; panel < end; panel += step) {
      job.panels = std::min(step, end - panel);
      const int64_t col = panel * kPanelCols;
      job.cols = std::min(p_.n - col, job.panels * kPanelCols);
      job.bias = p_.bias == nullptr ? nullptr : bias_ + col;
      job.c = p_.c.data + (row * job.c_row + col * job.c_col) * (p_.out == kOutF32 ? 4 : 2);
      if (p_.prepacked) {
        use_packed(panel, &job);
      } else {
        pack(panel, &scratch, &job);
      }
      p_.kernels->run[p_.kind](job);
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
  void pack_groups(const tw_tensor* t, int64_t panel, int64_t panels, std::vector<T>* to, const T** at,
                   int64_t* step) const {
    if (t == nullptr) return;
    *step = p_.groups * kPanelCols;
    to->assign(static_cast<size_t>(panels * *step), T{0});
    *at = to->data();
    const int64_t first = panel * kPanelCols, count = std::min(panels * kPanelCols, p_.n - first);
    for (int64_t i = 0; i < count; ++i) {
      T* out = to->data() + i / kPanelCols * *step + i % kPanelCols;
      for (int64_t g = 0; g < p_.groups; ++g) {
        const char* x = element(*t, (first + i) * t->stride[0] + g * t->stride[1]);
        out[g * kPanelCols] = *reinterpret_cast<const T*>(x);
      }
    }
  }

  void pack(int64_t panel, Scratch* scratch, Job* job) const {
    const int64_t size = words_ * kPanelCols, given = (p_.k + kWordCodes - 1) / kWordCodes;
    scratch->codes.assign(static_cast<size_t>(job->panels * size), 0);
    job->codes = reinterpret_cast<const char*>(scratch->codes.data());
    job->codes_bytes = size * 4;
    for (int64_t i = 0; i < job->cols; ++i) {
      uint32_t* out = scratch->codes.data() + i / kPanelCols * size + i % kPanelCols;
      const int64_t from = (panel * kPanelCols + i) * p_.b->stride[0];
      for (int64_t w = 0; w < given; ++w) {
        const char* x = element(*p_.b, from + w * p_.b->stride[1]);
        out[w * kPanelCols] = panel_word(*reinterpret_cast<const uint32_t*>(x));
      }
    }
    pack_groups(p_.scale, panel, job->panels, &scratch->scale, &job->scale, &job->scale_step);
    pack_groups(p_.zeros, panel, job->panels, &scratch->zero, &job->zero, &job->zero_step);
    pack_groups(p_.minima, panel, job->panels, &scratch->minimum, &job->minimum, &job->minimum_step);
  }

  const Problem& p_;
  const Stage stage_;
  const int64_t words_, panels_, a_bytes_;
  char* a_ = nullptr;
  float *sums_ = nullptr, *row_scale_ = nullptr, *bias_ = nullptr;
};

}  // namespace

bool run(const Problem& p) {
  if (p.m == 0 || p.n == 0) return true;
  thread_local Workspace workspace;
  return Runner(p).run(workspace);
}

}  // namespace tw::gemm_w4
