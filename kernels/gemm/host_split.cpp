// K in several parts: each is a gemm of its own into partial sums, which are then added in the order of the
// parts. Where the parts are cut follows from K and split_k alone, so results are the same bits for any
// number of threads.
#include <atomic>

#include "gemm/host_runner.hpp"

namespace tw::gemm {
namespace {

// Parts are whole chunks of every kernel, but for the end of the last one.
constexpr int64_t kPartUnit = 64;

// At most `split` parts of K, as even as whole units allow.
Parts k_parts(int64_t k, int64_t split) {
  const int64_t units = (k + kPartUnit - 1) / kPartUnit, count = split < units ? split : units;
  return {count, units / count, units % count, kPartUnit, k};
}

// Part `at` of K for the columns of `panels`, as raw sums at `to`.
Problem part_of(const Problem& p, const Parts& parts, int64_t at, Range panels, char* to,
                int64_t row_stride) {
  const int64_t k = parts.begin(at), col = panels.begin * kPanelCols, bytes = kElementBytes[p.kind];
  const int64_t left = p.n - col, cols = panels.size() * kPanelCols;
  Problem one = p;
  one.out = p.kind == kI8 ? kOutI32 : kOutF32;
  one.k = parts.size(at);
  one.n = cols < left ? cols : left;
  one.a.data += k * p.a.col_stride * bytes;
  if (p.prepacked) {
    one.b.data += panels.begin * p.panel_bytes + k / kGroup[p.kind] * kGroupBytes[p.kind];
  } else {
    one.b.data += (k * p.b.row_stride + col * p.b.col_stride) * bytes;
  }
  one.bias = one.row_scale = one.col_scale = {};
  one.c = {to + col * 4, one.m, one.n, row_stride, 1};
  one.config.split_k = 1;
  one.threads = 1;
  return one;
}

// Columns past n, which no part writes but all are summed.
void zero_padding(char* to, int64_t rows, int64_t n, int64_t row_stride) {
  if (n == row_stride) return;
  for (int64_t row = 0; row < rows; ++row) {
    __builtin_memset(to + (row * row_stride + n) * 4, 0, static_cast<size_t>((row_stride - n) * 4));
  }
}

template <class Sum>
void add_into(void* to, const void* from, int64_t n) {
  Sum* sums = static_cast<Sum*>(to);
  const Sum* more = static_cast<const Sum*>(from);
  for (int64_t i = 0; i < n; ++i) sums[i] += more[i];
}

}  // namespace

bool Runner::run_split() {
  const Parts parts = k_parts(p_.k, p_.config.split_k);
  const int64_t row_stride = panels_ * kPanelCols, part_bytes = p_.m * row_stride * 4;
  Layout layout;
  const int64_t vectors = layout.add(vectors_bytes());
  const int64_t sums = layout.add(part_bytes * parts.count);
  char* base = workspace_.get(layout.size());
  if (base == nullptr) return false;
  fill_vectors(base + vectors);

  // Threads beyond the parts share the columns.
  const int64_t wanted = threads_ / parts.count, slices = wanted < 1         ? 1
                                                          : wanted < panels_ ? wanted
                                                                             : panels_;
  std::atomic<bool> done{true};
  parallel_for(parts.count * slices, threads_, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t part = i / slices;
      char* to = base + sums + part * part_bytes;
      if (i % slices == 0) zero_padding(to, p_.m, p_.n, row_stride);
      if (!tw::gemm::run(part_of(p_, parts, part, split(panels_, slices, i % slices), to, row_stride)))
        done = false;
    }
  });
  if (!done) return false;
  parallel_for(panels_, threads_, [&](int64_t begin, int64_t end, int) {
    const int64_t col = begin * kPanelCols;
    for (int64_t row = 0; row < p_.m; ++row) {
      char* to = base + sums + (row * row_stride + col) * 4;
      const int64_t n = (end - begin) * kPanelCols;
      for (int64_t part = 1; part < parts.count; ++part) {
        if (kind_ == kI8) {
          add_into<uint32_t>(to, to + part * part_bytes, n);
        } else {
          add_into<float>(to, to + part * part_bytes, n);
        }
      }
    }
    finish(base + sums + col * 4, row_stride, 0, p_.m, col, panel_cols(begin, end - begin));
  });
  return true;
}

}  // namespace tw::gemm
