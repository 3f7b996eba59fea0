// Each path's rows are multiplied together: gathered first, with their results brought to their places, or
// run by run where they lie if that moves less. A path that has no rows costs nothing, and one that has all
// of them is a plain gemm.
#include "mask_gemm/host_run.hpp"

#include <algorithm>

#include "_host/thread_pool.hpp"
#include "_host/workspace.hpp"
#include "_rows/host_rows.hpp"

namespace tw::mask_gemm {

namespace {

constexpr int64_t kOutBytes = gemm::kOutBytes[gemm::kOutBF16];  // of an element of c
constexpr int64_t kScaleBytes = 4;
constexpr int64_t kCallBytes = 16 << 10;  // that could be moved in the time a call takes by itself
constexpr int64_t kPackingPasses = 4;     // weights that are not packed are read, written and read again

class Runner {
 public:
  Runner(const Problem& problem, const Rows& rows, Workspace& workspace)
      : p_(problem), rows_(rows), workspace_(workspace) {}

  bool run(Path path) {
    gemm::Problem product = p_.of[path];
    product.m = product.c.rows = rows_.count(path);
    if (product.m == 0 || product.n == 0) return true;
    if (moves_less_in_place(path)) return in_place(path);
    return gather(path, &product) && gemm::run(product) && scatter(path, product.c);
  }

 private:
  int64_t element_bytes(Path path) const { return gemm::kElementBytes[p_.of[path].kind]; }

  // Every run but one reads all weights again; gathering reads and writes rows of a, and results twice.
  bool moves_less_in_place(Path path) const {
    const gemm::Problem& p = p_.of[path];
    const int64_t row = p.k * element_bytes(path), passes = p.prepacked ? 1 : kPackingPasses;
    const int64_t again = (rows_.runs(path) - 1) * (passes * p.n * row + kCallBytes);
    return again <= rows_.count(path) * 2 * (row + p.n * kOutBytes);
  }

  bool in_place(Path path) const {
    const int64_t count = rows_.count(path);
    for (int64_t i = 0, end; i < count; i = end) {
      end = rows_.run_end(path, i);
      const int64_t first = rows_.row(path, i);
      gemm::Problem run = p_.of[path];
      run.m = run.c.rows = end - i;
      if (run.k != 0) run.a.data += first * run.a.row_stride * element_bytes(path);
      run.c.data += first * run.c.row_stride * kOutBytes;
      if (path == kInInt8) run.row_scale.data += first * run.row_scale.stride * kScaleBytes;
      if (!gemm::run(run)) return false;
    }
    return true;
  }

  // Copies the rows of a path, with their scales, and makes room for their results.
  bool gather(Path path, gemm::Problem* product) {
    const int64_t size = element_bytes(path), row_bytes = product->k * size, count = product->m;
    Layout layout;
    const int64_t a = layout.add(count * row_bytes), scales = layout.add(count * kScaleBytes),
                  c = layout.add(count * product->n * kOutBytes);
    char* room = workspace_.get(layout.size());
    if (room == nullptr) return false;
    const gemm::Operand from = product->a;
    each_row(path, row_bytes, [&](int64_t i, int64_t row) {
      rows::copy_lanes(from.data + row * from.row_stride * size, from.col_stride * size,
                       room + a + i * row_bytes, size, size, product->k);
    });
    product->a = {room + a, product->k, 1};
    product->c = {room + c, count, product->n, product->n, 1};
    if (path != kInInt8) return true;
    auto* gathered = reinterpret_cast<float*>(room + scales);
    const auto* scale = reinterpret_cast<const float*>(product->row_scale.data);
    for (int64_t i = 0; i < count; ++i) gathered[i] = scale[rows_.row(path, i) * product->row_scale.stride];
    product->row_scale = {room + scales, TW_FP32, 1};
    return true;
  }

  bool scatter(Path path, const View2& from) const {
    const View2& to = p_.of[path].c;
    const int64_t row_bytes = to.cols * kOutBytes;
    each_row(path, row_bytes, [&](int64_t i, int64_t row) {
      rows::copy_lanes(from.data + i * row_bytes, kOutBytes, to.data + row * to.row_stride * kOutBytes,
                       to.col_stride * kOutBytes, kOutBytes, to.cols);
    });
    return true;
  }

  // body(i, row) for the rows of a path, which take `row_bytes` each.
  template <class Body>
  void each_row(Path path, int64_t row_bytes, const Body& body) const {
    const int64_t count = row_bytes == 0 ? 0 : rows_.count(path),
                  useful = count * row_bytes / rows::kBytesAThread;
    const int threads = static_cast<int>(std::clamp<int64_t>(useful, 1, p_.of[path].threads));
    parallel_for(count, threads, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) body(i, rows_.row(path, i));
    });
  }

  const Problem& p_;
  const Rows& rows_;
  Workspace& workspace_;
};

}  // namespace

bool run(const Problem& problem, const Rows& rows) {
  static thread_local Workspace workspace;
  Runner runner(problem, rows, workspace);
  const bool done = runner.run(kInBf16) && runner.run(kInInt8);
  workspace.trim(kKeptScratchBytes);
  return done;
}

}  // namespace tw::mask_gemm
