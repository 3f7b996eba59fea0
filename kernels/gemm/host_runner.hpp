// State shared by the schedules of the host gemm (host_run.cpp, host_blocked.cpp, host_split.cpp).
#pragma once

#include "_host/thread_pool.hpp"
#include "_host/workspace.hpp"
#include "gemm/host_run.hpp"

namespace tw::gemm {

// Fewer multiplications than this are not worth another thread.
constexpr int64_t kMacsPerThread = 1 << 17;

struct Vectors {
  const void* bias = nullptr;  // [round_up(n, 16)]
  const float* row_scale = nullptr;
  const float* col_scale = nullptr;
};

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

class Runner {
 public:
  Runner(const Problem& problem, Workspace& workspace);
  bool run();

 private:
  friend class Blocked;

  int64_t vectors_bytes() const {
    return round_up(p_.n, kPanelCols) * 4 * ((p_.bias.data != nullptr) + (p_.col_scale.data != nullptr)) +
           (p_.row_scale.data != nullptr ? round_up(p_.m, kPanelCols) * 4 : 0);
  }

  void fill_vectors(char* at);

  // Writes the outputs of rows [row, row + rows) and columns [col, col + cols) from their sums.
  void finish(const void* acc, int64_t acc_stride, int64_t row, int64_t rows, int64_t col,
              int64_t cols) const;

  // What the rows' int8 sums start from, when this level needs it.
  const int32_t* starts_or_null(const int32_t* starts) const {
    return kind_ == kI8 && t_.needs_row_start ? starts : nullptr;
  }

  Operand a_at(int64_t row) const {
    return {p_.a.data + row * p_.a.row_stride * kElementBytes[kind_], p_.a.row_stride, p_.a.col_stride};
  }

  int64_t panel_cols(int64_t first, int64_t count) const {
    const int64_t left = p_.n - first * kPanelCols;
    return left < count * kPanelCols ? left : count * kPanelCols;
  }

  bool run_no_k();
  bool run_stream();
  bool run_dot();
  bool run_axpy();
  bool run_blocked();
  bool run_split();  // host_split.cpp
  int64_t padded_rows(int64_t rows) const { return round_up(rows, t_.row_unit[kind_]); }
  struct Scratch;
  void run_bands(Range rows, int64_t band, int64_t lane, bool alone, const Scratch& at, char* base);
  void pack_row_blocks(int64_t row0, const Parts& blocks, uint32_t* to, int32_t* starts,
                       int most_threads) const;

  // Calls body(first_panel, panels, thread) over the panels, a thread's share at a time, in steps of tile_n.
  template <class Body>
  void for_panels(const Body& body) const {
    parallel_for(panels_, threads_, [&](int64_t begin, int64_t end, int index) {
      const Session session(t_, kind_);
      const Parts steps = cut(end - begin, p_.config.tile_n / kPanelCols);
      for (int64_t i = 0; i < steps.count; ++i) body(begin + steps.begin(i), steps.size(i), index);
    });
  }

  const Problem& p_;
  const KernelTable& t_;
  const Kind kind_;
  Workspace& workspace_;
  Vectors vectors_;
  int64_t groups_, a_groups_, panels_;  // a_groups_: of packed A
  int threads_;
};

}  // namespace tw::gemm
