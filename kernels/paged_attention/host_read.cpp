#include "paged_attention/host_read.hpp"

#include <cmath>
#include <initializer_list>
#include <string>

#include "_host/thread_pool.hpp"

namespace tw::paged {
namespace {

using Text = std::string;

constexpr int64_t kMaxChannels = 1024;

// A tensor of `n` dimensions with these sizes and this type, null after a refusal.
template <int n>
const tw_tensor* shaped(const Call& call, const Text& name, int32_t dtype, const int64_t (&sizes)[n]) {
  const tw_tensor* t = call.require(name.c_str(), n);
  if (t == nullptr || !call.check_dtype(*t, dtype)) return nullptr;
  for (int i = 0; i < n; ++i) {
    if (!call.check_dim(*t, i, sizes[i])) return nullptr;
  }
  return t;
}

Plane plane(const tw_tensor& t) {
  Plane out;
  out.data = static_cast<const char*>(t.data);
  out.dtype = t.dtype;
  for (int i = 0; i < t.ndim && i < 3; ++i) out.step[i] = t.stride[i] * dtype_size(t.dtype);
  return out;
}

template <int n>
bool read_plane(const Call& call, const Text& name, int32_t dtype, const int64_t (&sizes)[n], Plane* out) {
  const tw_tensor* t = shaped(call, name, dtype, sizes);
  if (t == nullptr) return false;
  *out = plane(*t);
  return true;
}

// Rows that are read whole: the last dimension must be contiguous.
bool dense_rows(const Call& call, const tw_tensor& t) {
  const int last = t.ndim - 1;
  if (t.shape[last] <= 1 || t.stride[last] == 1) return true;
  call.refuse("the last dimension of \"%s\" has stride %lld; accepted: 1", t.name,
              static_cast<long long>(t.stride[last]));
  return false;
}

template <int n>
bool read_rows(const Call& call, const Text& name, int32_t dtype, const int64_t (&sizes)[n], Plane* out) {
  const tw_tensor* t = shaped(call, name, dtype, sizes);
  if (t == nullptr || !dense_rows(call, *t)) return false;
  *out = plane(*t);
  return true;
}

// All dimensions but the first must lie as in a dense array.
bool dense_pages(const Call& call, const tw_tensor& t) {
  int64_t expected = 1;
  for (int i = t.ndim - 1; i > 0; --i) {
    if (t.shape[i] != 1 && t.stride[i] != expected && Call::count(t) != 0) {
      call.refuse("pages of \"%s\" must be contiguous: dimension %d has stride %lld; accepted: %lld", t.name,
                  i, static_cast<long long>(t.stride[i]), static_cast<long long>(expected));
      return false;
    }
    expected *= t.shape[i];
  }
  return call.check_align(t, 64);
}

bool read_pages(const Call& call, const Text& name, bool nz, int32_t dtype, const Problem& p, int64_t lanes,
                Side* side) {
  const int64_t bytes = dtype_size(dtype), c0 = 32 / bytes;
  const tw_tensor* t = nz ? shaped(call, name, dtype, {p.pages, p.heads, (lanes + c0 - 1) / c0, kPage, c0})
                          : shaped(call, name, dtype, {p.pages, kPage, p.heads, lanes});
  if (t == nullptr || !dense_pages(call, *t)) return false;
  side->pages = plane(*t);
  side->row_bytes = lanes * bytes;
  if (nz) {
    side->head_step = (lanes + c0 - 1) / c0 * kPage * 32;
    side->token_step = 32;
    side->chunk_step = kPage * 32;
    side->page_bytes = side->head_step * p.heads;
  } else {
    side->head_step = side->row_bytes;
    side->token_step = side->row_bytes * p.heads;
    side->chunk_step = 32;
    side->page_bytes = side->token_step * kPage;
  }
  return true;
}

bool read_scales(const Call& call, const Text& prefix, const Problem& p, int64_t d, Side* side) {
  switch (p.kv) {
    case kFloat:
      return true;
    case kC8s:
      return read_plane(call, prefix + "channel_scale", TW_FP32, {p.heads, d}, &side->channel_scale);
    case kC8d:
      return read_plane(call, prefix + "token_scale", TW_FP32, {p.pages, kPage, p.heads}, &side->token_scale);
    case kKv4:
      break;
  }
  if (side->key) {
    return read_rows(call, prefix + "page_scale", TW_FP16, {p.pages, p.heads, d}, &side->page_scale) &&
           read_rows(call, prefix + "page_zero", TW_FP16, {p.pages, p.heads, d}, &side->page_zero);
  }
  return read_plane(call, prefix + "token_scale", TW_FP16, {p.pages, kPage, p.heads}, &side->token_scale) &&
         read_plane(call, prefix + "token_zero", TW_FP16, {p.pages, kPage, p.heads}, &side->token_zero);
}

bool read_selected(const Call& call, const Text& prefix, const char* letter, const Problem& p, int64_t width,
                   int32_t dtype, Selected* out) {
  const Text pool = prefix + letter + "pool";
  const tw_tensor* rows = call.require(pool.c_str(), 2);
  if (rows == nullptr) return false;
  out->count = rows->shape[0];
  return read_plane(call, prefix + letter + "mask", TW_INT16, {p.pages, p.heads}, &out->mask) &&
         read_plane(call, prefix + letter + "rank", TW_INT32, {p.pages, p.heads}, &out->rank) &&
         read_rows(call, pool, dtype, {out->count, width}, &out->rows);
}

bool read_residuals(const Call& call, const Text& prefix, const Problem& p, int64_t d, int32_t compute,
                    Side* side) {
  if (p.residual == kNone) return true;
  if (!read_selected(call, prefix, "", p, d / 4, TW_INT16, &side->residuals) ||
      !read_selected(call, prefix, "f", p, d, compute, &side->floats)) {
    return false;
  }
  return p.residual == kNested ||
         read_plane(call, prefix + "pool_scale", TW_FP32, {side->residuals.count}, &side->residuals.scale);
}

bool read_side(const Call& call, const Text& prefix, bool nz, const Problem& p, int64_t d, int32_t compute,
               Side* side) {
  const int32_t code = p.kv == kFloat ? compute : p.kv == kKv4 ? TW_INT16 : TW_INT8;
  side->key = prefix == "k_";
  side->channels = d;
  if ((p.kv == kKv4 || p.residual != kNone) && d % 4 != 0) {
    call.refuse("4-bit codes need a multiple of 4 channels, not %lld", static_cast<long long>(d));
    return false;
  }
  return read_pages(call, prefix + "cache", nz, code, p, p.kv == kKv4 ? d / 4 : d, side) &&
         read_scales(call, prefix, p, d, side) && read_residuals(call, prefix, p, d, compute, side);
}

bool read_sizes(const Call& call, Problem* p) {
  const tw_tensor* q = call.require("q", 3);
  const tw_tensor* table = q == nullptr ? nullptr : call.require("block_table", 2);
  const tw_tensor* o = table == nullptr ? nullptr : call.require("o", 3);
  const tw_tensor* k = o == nullptr ? nullptr : call.tensor("k_cache");
  if (o == nullptr) return false;
  if (k == nullptr || (k->ndim != 4 && k->ndim != 5)) {
    call.refuse("tensor \"k_cache\" is missing, or is neither [P,16,HKV,L] nor [P,HKV,L/C0,16,C0]");
    return false;
  }
  p->tq = q->shape[0], p->hq = q->shape[1], p->dk = q->shape[2], p->dv = o->shape[2];
  p->sequences = table->shape[0], p->table_width = table->shape[1];
  p->pages = k->shape[0], p->heads = k->shape[k->ndim == 4 ? 2 : 1];
  if (p->heads <= 0 || p->hq % p->heads != 0) {
    call.refuse("%lld query heads cannot share %lld heads of keys", static_cast<long long>(p->hq),
                static_cast<long long>(p->heads));
    return false;
  }
  p->group = p->hq / p->heads;
  for (const int64_t d : {p->dk, p->dv}) {
    if (d >= 1 && d <= kMaxChannels) continue;
    call.refuse("a head has %lld channels; accepted: 1 to %lld", static_cast<long long>(d),
                static_cast<long long>(kMaxChannels));
    return false;
  }
  return call.check_dim(*o, 0, p->tq) && call.check_dim(*o, 1, p->hq);
}

bool read_number(const Call& call, const char* name, bool negative, double* out) {
  *out = call.number(name, 0.0);
  if (std::isfinite(*out) && (negative || *out >= 0.0)) return true;
  call.refuse("%s is %g; accepted: %s", name, *out, negative ? "a finite number" : "0 (off) or more");
  return false;
}

bool read_flags(const Call& call, Problem* p, bool* nz) {
  const int64_t kv = call.attr("kv", kFloat), residual = call.attr("residual", kNone);
  if (kv < kFloat || kv > kKv4 || residual < kNone || residual > kE3m0 ||
      (kv == kFloat && residual != kNone)) {
    call.refuse("kv=%lld with residual=%lld; accepted: 0 to 3 and 0 to 2, floats without residuals",
                static_cast<long long>(kv), static_cast<long long>(residual));
    return false;
  }
  p->kv = static_cast<Kv>(kv);
  p->residual = static_cast<Residual>(residual);
  p->latent = call.attr("values", 0) == 1;
  p->batch_invariant = call.attr("batch_invariant", 0) == 1;
  *nz = call.attr("kv_layout", 0) == 1;
  double scale, softcap;
  if (!read_number(call, "scale", true, &scale) || !read_number(call, "softcap", false, &softcap) ||
      !read_number(call, "window", false, &p->window)) {
    return false;
  }
  p->scale = static_cast<float>(scale != 0.0 ? scale : 1.0 / std::sqrt(static_cast<double>(p->dk)));
  p->softcap = static_cast<float>(softcap);
  if (!p->latent) return true;
  if (p->kv == kFloat && p->dv <= p->dk) return true;
  call.refuse("values=latent takes the first of a float key's channels, at most %lld, not %lld",
              static_cast<long long>(p->dk), static_cast<long long>(p->dv));
  return false;
}

bool read_config(const Call& call, Problem* p) {
  p->split_pages = call.attr("split_pages", 0);
  p->prefetch_kib = call.attr("prefetch_kib", 32);
  p->threads = resolve_threads(call.threads());
  if (p->split_pages >= 0 && p->prefetch_kib >= 0) return true;
  call.refuse("split_pages=%lld, prefetch_kib=%lld; accepted: 0 or more",
              static_cast<long long>(p->split_pages), static_cast<long long>(p->prefetch_kib));
  return false;
}

bool read_outputs(const Call& call, int32_t compute, Problem* p) {
  if (!read_plane(call, "o", compute, {p->tq, p->hq, p->dv}, &p->o)) return false;
  if (call.tensor("lse") != nullptr && !read_plane(call, "lse", TW_FP32, {p->tq, p->hq}, &p->lse))
    return false;
  return call.tensor("alibi") == nullptr || read_plane(call, "alibi", TW_FP32, {p->hq}, &p->alibi);
}

bool read_open_keys(const Call& call, int32_t compute, Problem* p) {
  if (p->kv != kKv4) return true;
  const tw_tensor* t = shaped(call, "k_open", compute, {p->sequences, kPage, p->heads, p->dk});
  if (t == nullptr || !dense_rows(call, *t)) return false;
  p->k.open = plane(*t);
  return true;
}

}  // namespace

bool read_problem(const Call& call, Problem* p) {
  bool nz = false;
  if (!read_sizes(call, p) || !read_flags(call, p, &nz) || !read_config(call, p)) return false;
  const int32_t compute = call.tensor("q")->dtype;
  if (compute != TW_FP32 && compute != TW_BF16 && compute != TW_FP16) {
    call.refuse("tensor \"q\" is %s; accepted: fp32, bf16, fp16", dtype_name(compute));
    return false;
  }
  return read_plane(call, "q", compute, {p->tq, p->hq, p->dk}, &p->q) && read_outputs(call, compute, p) &&
         read_plane(call, "cu_q", TW_INT32, {p->sequences + 1}, &p->cu_q) &&
         read_plane(call, "seq_lens", TW_INT32, {p->sequences}, &p->seq_lens) &&
         read_plane(call, "block_table", TW_INT32, {p->sequences, p->table_width}, &p->block_table) &&
         read_side(call, "k_", nz, *p, p->dk, compute, &p->k) &&
         (p->latent || read_side(call, "v_", nz, *p, p->dv, compute, &p->v)) &&
         read_open_keys(call, compute, p);
}

}  // namespace tw::paged
