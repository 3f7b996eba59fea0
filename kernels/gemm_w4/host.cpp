// C[M, N] = A[M, K] @ W^T of 4-bit weights on the CPU: argument checks and the choice of the ISA level.
#include "_host/call.hpp"
#include "_host/cpu.hpp"
#include "_host/export.hpp"
#include "_host/levels.hpp"
#include "_host/thread_pool.hpp"
#include "gemm_w4/host_run.hpp"

TW_LEVELS(gemm_w4, KernelTable)

namespace tw::gemm_w4 {

namespace {

bool read_flags(const Call& call, Problem* p) {
  int64_t group, zero;
  if (!read_choice(call, "b_layout", false, "0 (rows) or 1 (panel16)", &p->prepacked) ||
      !read_choice(call, "group", 0, 3, "0 (32), 1 (64) or 2 (128)", &group) ||
      !read_choice(call, "zero", 0, 3, "0 (sym), 1 (asym) or 2 (min)", &zero) ||
      !read_choice(call, "batch_invariant", false, "0 (no) or 1 (yes)", &p->batch_invariant)) {
    return false;
  }
  p->group = int64_t{32} << group;
  p->zero = static_cast<Zero>(zero);
  return true;
}

bool read_dtypes(const Call& call, const tw_tensor& a, const tw_tensor& c, Problem* p) {
  switch (a.dtype) {
    case TW_FP32:
      p->kind = kF32;
      break;
    case TW_BF16:
      p->kind = kBF16;
      break;
    case TW_FP16:
      p->kind = kF16;
      break;
    case TW_INT8:
      p->kind = kI8;
      break;
    default:
      call.refuse("tensor \"a\" is %s; accepted: fp32, bf16, fp16, int8", dtype_name(a.dtype));
      return false;
  }
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
    default:
      call.refuse("tensor \"c\" is %s; accepted: fp32, bf16, fp16", dtype_name(c.dtype));
      return false;
  }
}

// Whether everything but the first dimension lies together.
bool check_panels(const Call& call, const tw_tensor& t) {
  int64_t stride = 1;
  for (int32_t i = t.ndim - 1; i > 0; --i) {
    if (Call::count(t) != 0 && t.shape[i] > 1 && t.stride[i] != stride) {
      call.refuse("each panel of \"%s\" must be contiguous; its dimension %d has stride %lld, expected %lld",
                  t.name, i, static_cast<long long>(t.stride[i]), static_cast<long long>(stride));
      return false;
    }
    stride *= t.shape[i];
  }
  return true;
}

bool read_codes(const Call& call, Problem* p) {
  p->b = call.require("b", p->prepacked ? 4 : 2);
  if (p->b == nullptr || !call.check_dtype(*p->b, TW_INT32)) return false;
  if (!p->prepacked) {
    return call.check_dim(*p->b, 0, p->n) && call.check_dim(*p->b, 1, (p->k + kWordCodes - 1) / kWordCodes);
  }
  return call.check_dim(*p->b, 0, (p->n + kPanelCols - 1) / kPanelCols) &&
         call.check_dim(*p->b, 1, (p->k + kBlock - 1) / kBlock) &&
         call.check_dim(*p->b, 2, kBlock / kWordCodes) && call.check_dim(*p->b, 3, kPanelCols) &&
         check_panels(call, *p->b);
}

// Reads scale, zero or minimum.
bool read_groups(const Call& call, const char* name, int32_t dtype, const Problem& p, const tw_tensor** to) {
  const tw_tensor* t = *to = call.require(name, p.prepacked ? 3 : 2);
  if (t == nullptr || !call.check_dtype(*t, dtype)) return false;
  if (!p.prepacked) return call.check_dim(*t, 0, p.n) && call.check_dim(*t, 1, p.groups);
  return call.check_dim(*t, 0, (p.n + kPanelCols - 1) / kPanelCols) && call.check_dim(*t, 1, p.groups) &&
         call.check_dim(*t, 2, kPanelCols) && check_panels(call, *t);
}

bool absent(const Call& call, const char* name, const char* why) {
  if (call.tensor(name) == nullptr) return true;
  call.refuse("tensor \"%s\" is for %s", name, why);
  return false;
}

bool read_vector(const Call& call, const char* name, int64_t size, int32_t dtype, const tw_tensor** to) {
  *to = call.require(name, 1);
  return *to != nullptr && call.check_dim(**to, 0, size) && call.check_dtype(**to, dtype);
}

bool read_weights(const Call& call, Problem* p) {
  if (!read_codes(call, p) || !read_groups(call, "scale", TW_FP16, *p, &p->scale)) return false;
  if (p->zero == kAsym ? !read_groups(call, "zero", TW_UINT8, *p, &p->zeros)
                       : !absent(call, "zero", "asymmetric weights")) {
    return false;
  }
  return p->zero == kMin ? read_groups(call, "minimum", TW_FP16, *p, &p->minima)
                         : absent(call, "minimum", "weights with minima");
}

bool read_ends(const Call& call, const tw_tensor& a, Problem* p) {
  if (p->kind == kI8 ? !read_vector(call, "row_scale", p->m, TW_FP32, &p->row_scale)
                     : !absent(call, "row_scale", "int8 activations")) {
    return false;
  }
  if (call.tensor("bias") == nullptr) return true;
  return read_vector(call, "bias", p->n, p->kind == kI8 ? TW_FP32 : a.dtype, &p->bias);
}

int gemm_w4(const Call& call) {
  Level level;
  if (!current_level(&level)) return call.refuse("%s", level_error());
  Problem p{};
  if (!read_flags(call, &p)) return TW_REFUSED;
  p.a = call.require("a", 2);
  if (p.a == nullptr) return TW_REFUSED;
  const tw_tensor* c = call.require("c", 2);
  if (c == nullptr) return TW_REFUSED;
  p.m = c->shape[0];
  p.n = c->shape[1];
  p.k = p.a->shape[1];
  p.groups = (p.k + p.group - 1) / p.group;
  if (!call.check_dim(*p.a, 0, p.m) || !read_dtypes(call, *p.a, *c, &p) || !read_weights(call, &p) ||
      !read_ends(call, *p.a, &p)) {
    return TW_REFUSED;
  }
  p.c = view2(*c);
  if (!injective(p.c)) {
    return call.refuse("strides %lld,%lld make elements of \"c\" overlap",
                       static_cast<long long>(c->stride[0]), static_cast<long long>(c->stride[1]));
  }
  p.threads = resolve_threads(call.threads());
  p.kernels = &kernels_of(level);
  if (!run(p)) {
    return call.fail("no memory for the scratch of a %lld x %lld x %lld gemm_w4", static_cast<long long>(p.m),
                     static_cast<long long>(p.n), static_cast<long long>(p.k));
  }
  return TW_OK;
}

}  // namespace
}  // namespace tw::gemm_w4

TW_EXPORT int tw_host_gemm_w4(const tw_call* call) { return tw::gemm_w4::gemm_w4(tw::Call(*call)); }
