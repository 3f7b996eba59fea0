// Schedules of the host gemm. Which one runs depends on the shapes, the layout, the config and the level,
// never on the number of threads. The parts of one sum go to different threads where K is split; where it is
// follows from K and split_k alone, so results are the same bits for any number of threads.
#include "gemm/host_run.hpp"

#include "_host/half.hpp"
#include "gemm/host_runner.hpp"

namespace tw::gemm {
namespace {

constexpr int64_t kDotRows = 16;     // up to here NK operands are used unpacked
constexpr int64_t kAxpyRows = 8;     // up to here KN operands are used unpacked
constexpr int64_t kDotAhead = 1024;  // bytes of each column prefetched ahead

float widen(const char* p, int32_t dtype) {
  uint16_t half;
  float value;
  switch (dtype) {
    case TW_BF16:
      __builtin_memcpy(&half, p, 2);
      return bf16_to_float(half);
    case TW_FP16:
      __builtin_memcpy(&half, p, 2);
      return fp16_to_float(half);
    default:
      __builtin_memcpy(&value, p, 4);
      return value;
  }
}

// Copies a vector to contiguous fp32 (int32 bits stay as they are), zero padded to `padded`.
const float* expand(const Strided& v, int64_t n, int64_t padded, float* to) {
  if (v.data == nullptr) return nullptr;
  for (int64_t i = 0; i < n; ++i) to[i] = widen(v.data + i * v.stride * dtype_size(v.dtype), v.dtype);
  for (int64_t i = n; i < padded; ++i) to[i] = 0.0f;
  return to;
}

}  // namespace

Runner::Runner(const Problem& problem, Workspace& workspace)
    : p_(problem), t_(*problem.kernels), kind_(problem.kind), workspace_(workspace) {
  groups_ = (p_.k + kGroup[kind_] - 1) / kGroup[kind_];
  a_groups_ = round_up(groups_, t_.k_unit[kind_]);
  panels_ = (p_.n + kPanelCols - 1) / kPanelCols;
  const int64_t useful = 1 + p_.m * p_.n * p_.k / kMacsPerThread;
  threads_ = static_cast<int>(useful < p_.threads ? useful : p_.threads);
}

bool Runner::run() {
  const bool nk = !p_.prepacked && p_.b.row_stride == 1, kn = !p_.prepacked && p_.b.col_stride == 1;
  if (p_.k == 0) return run_no_k();
  if (p_.config.split_k > 1) return run_split();
  // Which schedule is taken follows from M: for the same bits whatever M is, those that add in another order
  // than blocks are out. Row updates add like blocks where values are not paired.
  const bool any = !p_.batch_invariant, few = any || t_.one_order[kind_];
  const bool updates = t_.axpy[kind_] != nullptr && (any || kGroup[kind_] == 1);
  if (few && p_.prepacked && p_.m <= t_.mr[kind_]) return run_stream();
  if (few && nk && p_.m <= kDotRows) return run_dot();
  if (updates && kn && p_.m <= kAxpyRows) return run_axpy();
  return run_blocked();
}

void Runner::fill_vectors(char* at) {
  const int64_t cols = round_up(p_.n, kPanelCols);
  float* to = reinterpret_cast<float*>(at);
  vectors_.bias = expand(p_.bias, p_.n, cols, to);
  if (vectors_.bias != nullptr) to += cols;
  vectors_.col_scale = expand(p_.col_scale, p_.n, cols, to);
  if (vectors_.col_scale != nullptr) to += cols;
  vectors_.row_scale = expand(p_.row_scale, p_.m, p_.m, to);
}

void Runner::finish(const void* acc, int64_t acc_stride, int64_t row, int64_t rows, int64_t col,
                    int64_t cols) const {
  const int64_t bytes = kOutBytes[p_.out];
  Epilogue e;
  e.acc = acc;
  e.acc_stride = acc_stride;
  e.rows = rows;
  e.cols = cols;
  e.integer = kind_ == kI8;
  e.out = p_.out;
  e.c = p_.c.data + (row * p_.c.row_stride + col * p_.c.col_stride) * bytes;
  e.c_row_stride = p_.c.row_stride;
  e.c_col_stride = p_.c.col_stride;
  e.bias = vectors_.bias ? static_cast<const float*>(vectors_.bias) + col : nullptr;
  e.row_scale = vectors_.row_scale ? vectors_.row_scale + row : nullptr;
  e.col_scale = vectors_.col_scale ? vectors_.col_scale + col : nullptr;
  t_.epilogue(e);
}

// Nothing to sum: zeros, or the bias.
bool Runner::run_no_k() {
  Layout layout;
  const int64_t vectors = layout.add(vectors_bytes());
  const int64_t zeros = layout.add(round_up(p_.n, kPanelCols) * 4);
  char* base = workspace_.get(layout.size());
  if (base == nullptr) return false;
  fill_vectors(base + vectors);
  __builtin_memset(base + zeros, 0, static_cast<size_t>(round_up(p_.n, kPanelCols) * 4));
  finish(base + zeros, 0, 0, p_.m, 0, p_.n);
  return true;
}

// Prepacked B, one row tile: every panel is read once, in order.
bool Runner::run_stream() {
  const int64_t tile_n = p_.config.tile_n;
  const int64_t acc_bytes = round_up(padded_rows(p_.m) * tile_n * 4, kAlign);
  Layout layout;
  const int64_t vectors = layout.add(vectors_bytes());
  const int64_t a = layout.add(padded_rows(p_.m) * a_groups_ * t_.a_words[kind_] * 4);
  const int64_t starts = layout.add(p_.m * 4);
  const int64_t acc = layout.add(acc_bytes * threads_);
  char* base = workspace_.get(layout.size());
  if (base == nullptr) return false;
  fill_vectors(base + vectors);
  PackA pack{p_.a, p_.m, p_.k, reinterpret_cast<uint32_t*>(base + a),
             reinterpret_cast<int32_t*>(base + starts)};
  t_.pack_a[kind_](pack);
  for_panels([&](int64_t panel, int64_t panels, int index) {
    Tile tile{};
    tile.a = pack.dst;
    tile.rows = p_.m;
    tile.total_groups = a_groups_;
    tile.groups = groups_;
    tile.b = p_.b.data + panel * p_.panel_bytes;
    tile.panel_bytes = p_.panel_bytes;
    tile.panels = panels;
    tile.acc = base + acc + index * acc_bytes;
    tile.acc_stride = tile_n;
    tile.row_start = starts_or_null(pack.row_start);
    tile.prefetch = p_.config.stages == 2 ? tile.b : nullptr;
    t_.stream[kind_](tile);
    finish(tile.acc, tile_n, 0, p_.m, panel * kPanelCols, panel_cols(panel, panels));
  });
  return true;
}

// B stored [N, K] and few rows: dot products along K, each column of B read once.
bool Runner::run_dot() {
  const int64_t acc_stride = p_.config.tile_n;
  const int64_t acc_bytes = round_up(p_.m * acc_stride * 4, kAlign);
  const int64_t chunks = (p_.k + t_.dot_chunk[kind_] - 1) / t_.dot_chunk[kind_];
  const int64_t row_words = chunks * t_.dot_words[kind_];
  Layout layout;
  const int64_t vectors = layout.add(vectors_bytes());
  const int64_t a = layout.add(padded_rows(p_.m) * row_words * 4);
  const int64_t starts = layout.add(p_.m * 4);
  const int64_t acc = layout.add(acc_bytes * threads_);
  char* base = workspace_.get(layout.size());
  if (base == nullptr) return false;
  fill_vectors(base + vectors);
  PackA pack{p_.a, p_.m, p_.k, reinterpret_cast<uint32_t*>(base + a),
             reinterpret_cast<int32_t*>(base + starts)};
  t_.pack_dot[kind_](pack);
  for_panels([&](int64_t panel, int64_t panels, int index) {
    Dot dot;
    dot.a = pack.dst;
    dot.a_row_words = row_words;
    dot.rows = p_.m;
    dot.b_col_bytes = p_.b.col_stride * kElementBytes[kind_];
    dot.b = p_.b.data + panel * kPanelCols * dot.b_col_bytes;
    dot.k = p_.k;
    dot.cols = panel_cols(panel, panels);
    dot.acc = base + acc + index * acc_bytes;
    dot.acc_stride = acc_stride;
    dot.row_start = starts_or_null(pack.row_start);
    dot.prefetch_bytes = p_.config.stages == 2 ? kDotAhead : 0;
    t_.dot[kind_](dot);
    finish(dot.acc, acc_stride, 0, p_.m, panel * kPanelCols, dot.cols);
  });
  return true;
}

// B stored [K, N] and few rows: rows of B, read in long runs, are added into sums that stay in the cache.
bool Runner::run_axpy() {
  const int64_t acc_stride = panels_ * kPanelCols;
  Layout layout;
  const int64_t vectors = layout.add(vectors_bytes());
  const int64_t a = layout.add(p_.m * p_.k * 4);
  const int64_t acc = layout.add(p_.m * acc_stride * 4);
  char* base = workspace_.get(layout.size());
  if (base == nullptr) return false;
  fill_vectors(base + vectors);
  float* rows = reinterpret_cast<float*>(base + a);
  constexpr int32_t dtypes[kKinds] = {TW_FP32, TW_BF16, TW_FP16, TW_INT8};
  for (int64_t i = 0; i < p_.m; ++i) {
    expand({a_at(i).data, dtypes[kind_], p_.a.col_stride}, p_.k, p_.k, rows + i * p_.k);
  }
  parallel_for(panels_, threads_, [&](int64_t panel, int64_t end, int) {
    const int64_t col = panel * kPanelCols;
    Axpy axpy;
    axpy.a = rows;
    axpy.rows = p_.m;
    axpy.k = p_.k;
    axpy.cols = panel_cols(panel, end - panel);
    axpy.b = p_.b.data + col * kElementBytes[kind_];
    axpy.b_row_bytes = p_.b.row_stride * kElementBytes[kind_];
    axpy.acc = reinterpret_cast<float*>(base + acc) + col;
    axpy.acc_stride = acc_stride;
    axpy.prefetch = p_.config.stages == 2;
    t_.axpy[kind_](axpy);
    finish(axpy.acc, acc_stride, 0, p_.m, col, axpy.cols);
  });
  return true;
}

bool run(const Problem& problem) {
  if (problem.m == 0 || problem.n == 0) return true;
  // The parts of a split are problems of their own, on this thread too.
  static thread_local Workspace whole, partial;
  Workspace& workspace = problem.config.split_k > 1 ? partial : whole;
  const bool done = Runner(problem, workspace).run();
  workspace.trim(kKeptScratchBytes);
  return done;
}

}  // namespace tw::gemm
