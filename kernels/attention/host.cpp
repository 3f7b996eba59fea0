// Attention on the CPU: argument checks and the choice of the ISA level.
#include <cmath>
#include <cstdlib>

#include "_host/call.hpp"
#include "_host/cpu.hpp"
#include "_host/export.hpp"
#include "_host/levels.hpp"
#include "_host/thread_pool.hpp"
#include "attention/host_run.hpp"

TW_LEVELS(attention, KernelTable)

namespace tw::attention {

namespace {

constexpr int64_t kMostD = 256;
constexpr int64_t kMostTokens = 1 << 24;  // of a sequence: a place is exact as fp32
constexpr int64_t kInvariantKeys = 256;   // the key block where rows may depend on nothing else

long long wide(int64_t value) { return static_cast<long long>(value); }

bool read_field(const Call& call, const char* name, int64_t step, int64_t high, int64_t* value) {
  *value = call.attr(name, 32);
  if (*value >= step && *value <= high && *value % step == 0) return true;
  call.refuse("%s is %lld; accepted: multiples of %lld up to %lld", name, wide(*value), wide(step),
              wide(high));
  return false;
}

bool read_element(const Call& call, const tw_tensor& q, Problem* p) {
  switch (q.dtype) {
    case TW_FP32:
      p->element = kElementF32;
      break;
    case TW_BF16:
      p->element = kElementBF16;
      break;
    case TW_FP16:
      p->element = kElementF16;
      break;
    default:
      call.refuse("tensor \"q\" is %s; accepted: fp32, bf16, fp16", dtype_name(q.dtype));
      return false;
  }
  p->kind = call.attr("compute", 0) != 0                            ? kI8
            : p->element == kElementBF16 && p->kernels->dots[kBF16] ? kBF16
                                                                    : kF32;
  return true;
}

View view(const tw_tensor& t) {
  View found;
  found.data = static_cast<char*>(t.data);
  for (int i = 0; i < t.ndim; ++i) found.stride[i] = t.stride[i];
  return found;
}

// Elements of an output must not share an address.
bool check_output(const Call& call, const tw_tensor& t) {
  int64_t covered = 1;
  bool used[4] = {};
  for (int i = 0; i < t.ndim; ++i) {
    // Dimensions from the smallest stride on; each must step over all that the smaller ones cover.
    int next = -1;
    for (int j = 0; j < t.ndim; ++j) {
      if (!used[j] && (next < 0 || std::llabs(t.stride[j]) < std::llabs(t.stride[next]))) next = j;
    }
    used[next] = true;
    if (t.shape[next] <= 1) continue;
    if (std::llabs(t.stride[next]) < covered) {
      call.refuse("stride %lld of dimension %d makes elements of \"%s\" overlap", wide(t.stride[next]), next,
                  t.name);
      return false;
    }
    covered += (t.shape[next] - 1) * std::llabs(t.stride[next]);
  }
  return true;
}

bool read_shapes(const Call& call, Problem* p) {
  const tw_tensor *q = call.require("q", 4), *k = call.require("k", 4), *v = call.require("v", 4);
  const tw_tensor* o = call.require("o", 4);
  if (q == nullptr || k == nullptr || v == nullptr || o == nullptr) return false;
  if (!read_element(call, *q, p)) return false;
  if (!call.check_dtype(*k, q->dtype) || !call.check_dtype(*v, q->dtype) || !call.check_dtype(*o, q->dtype)) {
    return false;
  }
  p->batch = q->shape[0];
  p->queries = q->shape[1];
  p->heads = q->shape[2];
  p->dk = q->shape[3];
  p->keys = k->shape[1];
  p->key_heads = k->shape[2];
  p->dv = v->shape[3];
  const bool agree = call.check_dim(*k, 0, p->batch) && call.check_dim(*k, 3, p->dk) &&
                     call.check_dim(*v, 0, p->batch) && call.check_dim(*v, 1, p->keys) &&
                     call.check_dim(*v, 2, p->key_heads) && call.check_dim(*o, 0, p->batch) &&
                     call.check_dim(*o, 1, p->queries) && call.check_dim(*o, 2, p->heads) &&
                     call.check_dim(*o, 3, p->dv);
  if (!agree) return false;
  if (p->heads != 0 && (p->key_heads == 0 || p->heads % p->key_heads != 0)) {
    call.refuse("%lld heads of \"q\" are not a multiple of the %lld of \"k\"", wide(p->heads),
                wide(p->key_heads));
    return false;
  }
  if (p->dk < 1 || p->dk > kMostD || p->dv > kMostD) {
    call.refuse("rows of %lld (\"k\") and %lld (\"v\") elements; accepted: 1 to %lld and 0 to %lld",
                wide(p->dk), wide(p->dv), wide(kMostD), wide(kMostD));
    return false;
  }
  if (p->queries > kMostTokens || p->keys > kMostTokens) {
    call.refuse("%lld queries and %lld keys; accepted: up to %lld", wide(p->queries), wide(p->keys),
                wide(kMostTokens));
    return false;
  }
  p->q = view(*q);
  p->k = view(*k);
  p->v = view(*v);
  p->o = view(*o);
  return check_output(call, *o);
}

bool read_lse(const Call& call, Problem* p) {
  if (call.tensor("lse") == nullptr) return true;
  const tw_tensor* lse = call.require("lse", 3);
  if (lse == nullptr || !call.check_dtype(*lse, TW_FP32) || !call.check_dim(*lse, 0, p->batch) ||
      !call.check_dim(*lse, 1, p->queries) || !call.check_dim(*lse, 2, p->heads)) {
    return false;
  }
  p->lse = view(*lse);
  return check_output(call, *lse);
}

// Ends of sequences: from 0 to `total`, never falling.
const int32_t* read_ends(const Call& call, const char* name, int64_t total, int64_t* count) {
  const tw_tensor* t = call.require(name, 1);
  if (t == nullptr || !call.check_dtype(*t, TW_INT32)) return nullptr;
  *count = t->shape[0];
  const auto* ends = static_cast<const int32_t*>(t->data);
  if (*count < 1) {
    call.refuse("\"%s\" is empty; it holds 0 and the end of every sequence", name);
    return nullptr;
  }
  if (t->stride[0] != 1 && *count > 1) {
    call.refuse("\"%s\" must be contiguous, its stride is %lld", name, wide(t->stride[0]));
    return nullptr;
  }
  if (ends[0] != 0 || ends[*count - 1] != total) {
    call.refuse("\"%s\" goes from %d to %d; expected 0 to %lld", name, ends[0], ends[*count - 1],
                wide(total));
    return nullptr;
  }
  for (int64_t i = 1; i < *count; ++i) {
    if (ends[i] >= ends[i - 1]) continue;
    call.refuse("\"%s\" falls from %d to %d at entry %lld", name, ends[i - 1], ends[i], wide(i));
    return nullptr;
  }
  return ends;
}

bool read_lengths(const Call& call, Problem* p) {
  p->sequences = p->batch;
  if (call.tensor("cu_q") == nullptr && call.tensor("cu_k") == nullptr) return true;
  int64_t queries = 0, keys = 0;
  p->cu_q = read_ends(call, "cu_q", p->queries, &queries);
  if (p->cu_q == nullptr) return false;
  p->cu_k = read_ends(call, "cu_k", p->keys, &keys);
  if (p->cu_k == nullptr) return false;
  if (p->batch != 1 || queries != keys) {
    call.refuse(
        "ragged lengths take a batch of 1 and as many ends of queries as of keys; given: %lld, %lld, %lld",
        wide(p->batch), wide(queries), wide(keys));
    return false;
  }
  p->sequences = queries - 1;
  return true;
}

bool read_alibi(const Call& call, Problem* p) {
  if (call.tensor("alibi") == nullptr) return true;
  const tw_tensor* t = call.require("alibi", 1);
  if (t == nullptr || !call.check_dtype(*t, TW_FP32) || !call.check_dim(*t, 0, p->heads)) return false;
  p->alibi = static_cast<const float*>(t->data);
  p->alibi_stride = t->stride[0];
  return true;
}

bool read_flags(const Call& call, Problem* p) {
  p->causal = call.attr("mask", 0) == 0;
  const double window = call.number("window", 0.0), cap = call.number("softcap", 0.0);
  const double scale = call.number("scale", 0.0);
  if (!(window >= 0.0) || window != std::floor(window)) {
    call.refuse("window is %g; accepted: a number of keys, or 0 for none", window);
    return false;
  }
  if (!(cap >= 0.0) || !std::isfinite(cap)) {
    call.refuse("softcap is %g; accepted: a positive number, or 0 for none", cap);
    return false;
  }
  if (!std::isfinite(scale)) {
    call.refuse("scale is %g; accepted: a finite number, or 0 for 1/sqrt(DK)", scale);
    return false;
  }
  p->window = window > static_cast<double>(kMostTokens) ? 0 : static_cast<int64_t>(window);
  p->softcap = static_cast<float>(cap);
  p->scale = static_cast<float>(scale != 0.0 ? scale : 1.0 / std::sqrt(static_cast<double>(p->dk)));
  return true;
}

int attention(const Call& call) {
  Level level;
  if (!current_level(&level)) return call.refuse("%s", level_error());
  Problem p{};
  p.kernels = &kernels_of(level);
  if (!read_field(call, "tile_m", 16, 256, &p.tile_m) || !read_field(call, "tile_n", 32, 1024, &p.tile_n) ||
      !read_shapes(call, &p) || !read_lse(call, &p) || !read_lengths(call, &p) || !read_alibi(call, &p) ||
      !read_flags(call, &p)) {
    return TW_REFUSED;
  }
  if (call.attr("batch_invariant", 0) != 0) p.tile_n = kInvariantKeys;
  p.threads = resolve_threads(call.threads());
  if (p.batch == 0 || p.queries == 0 || p.heads == 0) return TW_OK;
  if (!run(p)) {
    return call.fail("no memory for the scratch of %lld queries and %lld keys", wide(p.queries),
                     wide(p.keys));
  }
  return TW_OK;
}

}  // namespace
}  // namespace tw::attention

TW_EXPORT int tw_host_attention(const tw_call* call) { return tw::attention::attention(tw::Call(*call)); }
