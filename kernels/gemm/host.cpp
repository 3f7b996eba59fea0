// C[M, N] = A[M, K] @ B (+ bias[N]) on the CPU: argument checks and the choice of the ISA level.
#include <initializer_list>

#include "_host/call.hpp"
#include "_host/cpu.hpp"
#include "_host/export.hpp"
#include "_host/levels.hpp"
#include "_host/thread_pool.hpp"
#include "gemm/host_run.hpp"

TW_LEVELS(gemm, KernelTable)

namespace tw::gemm {

namespace {

enum BLayout : int64_t { kKN = 0, kNK = 1, kPanel16 = 2 };

// Reads one config field; refuses outside [low, high] or off the step.
bool read_field(const Call& call, const char* name, int64_t fallback, int64_t low, int64_t high, int64_t step,
                int64_t* value) {
  *value = call.attr(name, fallback);
  if (*value >= low && *value <= high && *value % step == 0) return true;
  if (step == 1) {
    call.refuse("%s is %lld; accepted: %lld to %lld", name, static_cast<long long>(*value),
                static_cast<long long>(low), static_cast<long long>(high));
  } else {
    call.refuse("%s is %lld; accepted: multiples of %lld from %lld to %lld", name,
                static_cast<long long>(*value), static_cast<long long>(step), static_cast<long long>(low),
                static_cast<long long>(high));
  }
  return false;
}

bool read_config(const Call& call, Config* config) {
  return read_field(call, "tile_m", 32, 1, 1024, 1, &config->tile_m) &&
         read_field(call, "tile_n", 32, 16, 1024, 16, &config->tile_n) &&
         read_field(call, "tile_k", 32, 32, 4096, 32, &config->tile_k) &&
         read_field(call, "stages", 2, 1, 2, 1, &config->stages);
}

bool read_dtypes(const Call& call, const tw_tensor& a, const tw_tensor& b, const tw_tensor& c, Problem* p) {
  struct Known {
    int32_t dtype;
    Kind kind;
  };
  constexpr Known known[] = {{TW_FP32, kF32}, {TW_BF16, kBF16}, {TW_FP16, kF16}, {TW_INT8, kI8}};
  bool found = false;
  for (const Known& entry : known) {
    if (entry.dtype != a.dtype) continue;
    p->kind = entry.kind;
    found = true;
  }
  if (!found) {
    call.refuse("tensor \"a\" is %s; accepted: fp32, bf16, fp16, int8", dtype_name(a.dtype));
    return false;
  }
  if (!call.check_dtype(b, a.dtype)) return false;
  if (p->kind != kI8 && !call.check_dtype(c, a.dtype)) return false;
  switch (c.dtype) {
    case TW_FP32:
      p->out = kOutF32;
      return true;
    case TW_BF16:
      p->out = kOutBF16;
      return true;
    case TW_FP16:
      p->out = kOutF16;
      return true;
    case TW_INT32:
      p->out = kOutI32;
      return true;
    default:
      call.refuse("tensor \"c\" is %s; accepted with int8 inputs: int32, fp32, bf16, fp16",
                  dtype_name(c.dtype));
      return false;
  }
}

// Reads an optional vector of `size` elements; refuses another shape or dtype.
bool read_vector(const Call& call, const char* name, int64_t size, int32_t dtype, Strided* out) {
  if (call.tensor(name) == nullptr) return true;
  const tw_tensor* t = call.require(name, 1);
  if (t == nullptr || !call.check_dim(*t, 0, size) || !call.check_dtype(*t, dtype)) return false;
  *out = {static_cast<const char*>(t->data), t->dtype, t->stride[0]};
  return true;
}

bool read_scales(const Call& call, Problem* p) {
  const bool scaled = p->kind == kI8 && p->out != kOutI32;
  if (!scaled) {
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

bool read_prepacked(const Call& call, const tw_tensor& b, Problem* p) {
  const int64_t group = kGroup[p->kind];
  const int64_t groups = (p->k + group - 1) / group;
  if (!call.check_dim(b, 0, (p->n + kPanelCols - 1) / kPanelCols) || !call.check_dim(b, 1, groups) ||
      !call.check_dim(b, 2, kPanelCols) || !call.check_dim(b, 3, group)) {
    return false;
  }
  const bool dense = Call::count(b) == 0 || ((group == 1 || b.stride[3] == 1) && b.stride[2] == group &&
                                             (groups <= 1 || b.stride[1] == kPanelCols * group));
  if (!dense) {
    call.refuse("each panel of a panel16 \"b\" must be contiguous, its strides are %lld,%lld,%lld",
                static_cast<long long>(b.stride[1]), static_cast<long long>(b.stride[2]),
                static_cast<long long>(b.stride[3]));
    return false;
  }
  p->prepacked = true;
  p->b = {static_cast<const char*>(b.data), 0, 0};
  p->panel_bytes = b.stride[0] * dtype_size(b.dtype);
  return true;
}

bool read_b(const Call& call, const tw_tensor& b, int64_t layout, Problem* p) {
  if (layout == kPanel16) return read_prepacked(call, b, p);
  const int row = layout == kKN ? 0 : 1;
  if (!call.check_dim(b, row, p->k) || !call.check_dim(b, 1 - row, p->n)) return false;
  p->b = {static_cast<const char*>(b.data), b.stride[row], b.stride[1 - row]};
  return true;
}

int gemm(const Call& call) {
  Level level;
  if (!current_level(&level)) return call.refuse("%s", level_error());
  Problem p{};
  const int64_t layout = call.attr("b_layout", kKN);
  if (layout < kKN || layout > kPanel16) {
    return call.refuse("b_layout is %lld; accepted: 0 (KN), 1 (NK) or 2 (panel16)",
                       static_cast<long long>(layout));
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
  const int32_t bias_dtype = p.kind != kI8 ? a->dtype : p.out == kOutI32 ? TW_INT32 : TW_FP32;
  if (!read_vector(call, "bias", p.n, bias_dtype, &p.bias) || !read_scales(call, &p)) return TW_REFUSED;
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
