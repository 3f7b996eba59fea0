// C[M, N] = A[M, K] @ B (+ bias[N]) on the CPU: argument checks and the choice of the ISA level.
#include <initializer_list>

#include "_host/call.hpp"
#include "_host/cpu.hpp"
#include "_host/export.hpp"
#include "_host/levels.hpp"
#include "_host/thread_pool.hpp"
#include "_host/workspace.hpp"
#include "gemm/host_read.hpp"

TW_LEVELS(gemm, KernelTable)

namespace tw::gemm {

namespace {

constexpr int64_t kMostPartialBytes = 256 << 20;

enum BLayout : int64_t { kKN = 0, kNK = 1, kPanel16 = 2 };

// Reads an optional vector of `size` elements; refuses another shape or dtype.
bool read_vector(const Call& call, const char* name, int64_t size, int32_t dtype, Strided* out) {
  if (call.tensor(name) == nullptr) return true;
  const tw_tensor* t = call.require(name, 1);
  if (t == nullptr || !call.check_dim(*t, 0, size) || !call.check_dtype(*t, dtype)) return false;
  *out = strided(*t);
  return true;
}

bool read_scales(const Call& call, Problem* p) {
  if (!takes_scales(p->kind, p->out)) {
    for (const char* name : {"row_scale", "col_scale"}) {
      if (call.tensor(name) == nullptr) continue;
      call.refuse("tensor \"%s\" is for int8 inputs with a fp32, bf16 or fp16 output", name);
      return false;
    }
    return true;
  }
  if (!read_vector(call, "row_scale", p->m, TW_FP32, &p->row_scale) ||
      !read_vector(call, "col_scale", p->n, TW_FP32, &p->col_scale)) {
    return false;
  }
  if (call.tensor("col_scale") == nullptr) {
    call.refuse("tensor \"col_scale\" is missing");
    return false;
  }
  return true;
}

bool read_b(const Call& call, const tw_tensor& b, int64_t layout, Problem* p) {
  if (layout == kPanel16) return read_panel16(call, b, 0, p);
  const int row = layout == kKN ? 0 : 1;
  if (!call.check_dim(b, row, p->k) || !call.check_dim(b, 1 - row, p->n)) return false;
  p->b = {static_cast<const char*>(b.data), b.stride[row], b.stride[1 - row]};
  return true;
}

// Parts of K, and whether their sums may be taken.
bool read_split(const Call& call, Problem* p) {
  const int64_t& split = p->config.split_k;
  if (!read_field(call, "split_k", 1, 1, 64, 1, &p->config.split_k)) return false;
  if (split == 1) return true;
  if (p->batch_invariant) {
    call.refuse("split_k is %lld; accepted with batch_invariant: 1, as a split may follow from M",
                static_cast<long long>(split));
    return false;
  }
  const int64_t sums = split * p->m * round_up(p->n, kPanelCols) * 4;
  if (sums <= kMostPartialBytes) return true;
  call.refuse("split_k is %lld and takes %lld bytes of partial sums; accepted: at most %lld",
              static_cast<long long>(split), static_cast<long long>(sums),
              static_cast<long long>(kMostPartialBytes));
  return false;
}

int gemm(const Call& call) {
  Level level;
  if (!current_level(&level)) return call.refuse("%s", level_error());
  Problem p{};
  int64_t layout;
  if (!read_choice(call, "b_layout", kKN, 3, "0 (KN), 1 (NK) or 2 (panel16)", &layout) ||
      !read_choice(call, "batch_invariant", false, "0 (no) or 1 (yes)", &p.batch_invariant)) {
    return TW_REFUSED;
  }
  const tw_tensor* a = call.require("a", 2);
  if (a == nullptr) return TW_REFUSED;
  const tw_tensor* b = call.require("b", layout == kPanel16 ? 4 : 2);
  if (b == nullptr) return TW_REFUSED;
  const tw_tensor* c = call.require("c", 2);
  if (c == nullptr) return TW_REFUSED;
  p.m = c->shape[0];
  p.n = c->shape[1];
  p.k = a->shape[1];
  if (!read_config(call, &p.config) || !read_dtypes(call, *a, *b, *c, &p) || !call.check_dim(*a, 0, p.m) ||
      !read_b(call, *b, layout, &p)) {
    return TW_REFUSED;
  }
  if (!read_vector(call, "bias", p.n, bias_dtype(p.kind, p.out), &p.bias) || !read_scales(call, &p) ||
      !read_split(call, &p)) {
    return TW_REFUSED;
  }
  p.a = {static_cast<const char*>(a->data), a->stride[0], a->stride[1]};
  p.c = view2(*c);
  if (!injective(p.c)) {
    return call.refuse("strides %lld,%lld make elements of \"c\" overlap",
                       static_cast<long long>(c->stride[0]), static_cast<long long>(c->stride[1]));
  }
  p.threads = resolve_threads(call.threads());
  p.kernels = &kernels_of(level);
  if (!run(p)) {
    return call.fail("no memory for the scratch of a %lld x %lld x %lld gemm", static_cast<long long>(p.m),
                     static_cast<long long>(p.n), static_cast<long long>(p.k));
  }
  return TW_OK;
}

}  // namespace
}  // namespace tw::gemm

TW_EXPORT int tw_host_gemm(const tw_call* call) { return tw::gemm::gemm(tw::Call(*call)); }
