// C[T, N] = A[T, K] @ B[expert of the row] on the CPU: argument checks and the choice of the ISA level.
#include <new>

#include "_host/call.hpp"
#include "_host/cpu.hpp"
#include "_host/export.hpp"
#include "_host/levels.hpp"
#include "_host/thread_pool.hpp"
#include "gemm/host_read.hpp"
#include "grouped_gemm/host_run.hpp"

TW_LEVELS(gemm, KernelTable)

namespace tw::grouped_gemm {

namespace {

// b as [E, N, K], or as [E] times the panels of gemm.
bool read_b(const Call& call, const tw_tensor& b, int64_t experts, bool packed, Problem* p) {
  gemm::Problem& w = p->whole;
  if (!call.check_dim(b, 0, experts)) return false;
  p->b_bytes = b.stride[0] * dtype_size(b.dtype);
  if (packed) return gemm::read_panel16(call, b, 1, &w);
  if (!call.check_dim(b, 1, w.n) || !call.check_dim(b, 2, w.k)) return false;
  w.b = {static_cast<const char*>(b.data), b.stride[2], b.stride[1]};
  return true;
}

// An optional [experts, n] tensor; `step` is from one expert to the next.
bool read_by_expert(const Call& call, const char* name, int64_t experts, int64_t n, int32_t dtype,
                    gemm::Strided* out, int64_t* step) {
  if (call.tensor(name) == nullptr) return true;
  const tw_tensor* t = call.require(name, 2);
  if (t == nullptr || !call.check_dim(*t, 0, experts) || !call.check_dim(*t, 1, n) ||
      !call.check_dtype(*t, dtype)) {
    return false;
  }
  *out = gemm::strided(*t, 1);
  *step = t->stride[0];
  return true;
}

bool read_scales(const Call& call, int64_t experts, Problem* p) {
  gemm::Problem& w = p->whole;
  for (const char* name : {"row_scale", "col_scale"}) {
    const bool given = call.tensor(name) != nullptr;
    if (given == gemm::takes_scales(w.kind, w.out)) continue;
    call.refuse(given ? "tensor \"%s\" is for int8 inputs with a fp32, bf16 or fp16 output"
                      : "tensor \"%s\" is missing",
                name);
    return false;
  }
  if (!gemm::takes_scales(w.kind, w.out)) return true;
  const tw_tensor* rows = call.require("row_scale", 1);
  if (rows == nullptr || !call.check_dim(*rows, 0, w.m) || !call.check_dtype(*rows, TW_FP32)) return false;
  w.row_scale = gemm::strided(*rows);
  return read_by_expert(call, "col_scale", experts, w.n, TW_FP32, &w.col_scale, &p->scale_step);
}

// Where each expert's rows end: never falling, none beyond the rows there are.
bool read_ends(const Call& call, const tw_tensor& ends, Problem* p) {
  int64_t begin = 0;
  for (int64_t i = 0; i < ends.shape[0]; ++i) {
    int32_t end;
    std::memcpy(&end, element(ends, i * ends.stride[0]), sizeof end);
    if (end < begin || end > p->whole.m) {
      call.refuse("ends[%lld] is %d; accepted: %lld to %lld, never falling and at most the rows of \"a\"",
                  static_cast<long long>(i), end, static_cast<long long>(begin),
                  static_cast<long long>(p->whole.m));
      return false;
    }
    if (end > begin) p->groups.push_back({i, begin, end});
    begin = end;
  }
  p->rest = begin;
  return true;
}

bool read_flags(const Call& call, bool* packed, Problem* p) {
  return read_choice(call, "b_layout", false, "0 (NK) or 1 (panel16)", packed) &&
         read_choice(call, "batch_invariant", false, "0 (no) or 1 (yes)", &p->whole.batch_invariant);
}

int grouped_gemm(const Call& call) {
  Level level;
  if (!current_level(&level)) return call.refuse("%s", level_error());
  Problem p{};
  gemm::Problem& w = p.whole;
  bool packed;
  if (!read_flags(call, &packed, &p)) return TW_REFUSED;
  const tw_tensor* a = call.require("a", 2);
  const tw_tensor* b = a == nullptr ? nullptr : call.require("b", packed ? 5 : 3);
  const tw_tensor* ends = b == nullptr ? nullptr : call.require("ends", 1);
  const tw_tensor* c = ends == nullptr ? nullptr : call.require("c", 2);
  if (c == nullptr) return TW_REFUSED;
  w.m = c->shape[0];
  w.n = c->shape[1];
  w.k = a->shape[1];
  const int64_t experts = ends->shape[0];
  if (!gemm::read_config(call, &w.config) || !gemm::read_dtypes(call, *a, *b, *c, &w) ||
      !call.check_dtype(*ends, TW_INT32) || !call.check_dim(*a, 0, w.m) ||
      !read_b(call, *b, experts, packed, &p) ||
      !read_by_expert(call, "bias", experts, w.n, gemm::bias_dtype(w.kind, w.out), &w.bias, &p.bias_step) ||
      !read_scales(call, experts, &p) || !read_ends(call, *ends, &p)) {
    return TW_REFUSED;
  }
  w.a = {static_cast<const char*>(a->data), a->stride[0], a->stride[1]};
  w.c = view2(*c);
  if (!injective(w.c)) {
    return call.refuse("strides %lld,%lld make elements of \"c\" overlap",
                       static_cast<long long>(c->stride[0]), static_cast<long long>(c->stride[1]));
  }
  w.threads = resolve_threads(call.threads());
  w.kernels = &gemm::kernels_of(level);
  if (!run(p)) {
    return call.fail("no memory for the scratch of a %lld x %lld x %lld grouped_gemm",
                     static_cast<long long>(w.m), static_cast<long long>(w.n), static_cast<long long>(w.k));
  }
  return TW_OK;
}

}  // namespace
}  // namespace tw::grouped_gemm

TW_EXPORT int tw_host_grouped_gemm(const tw_call* call) {
  const tw::Call checked(*call);
  try {
    return tw::grouped_gemm::grouped_gemm(checked);
  } catch (const std::bad_alloc&) {
    return checked.fail("no memory for the groups of grouped_gemm");
  }
}
