// New keys and values into a paged cache on the CPU: argument checks and the division among threads.
#include <algorithm>
#include <initializer_list>

#include "_host/call.hpp"
#include "_host/export.hpp"
#include "_host/thread_pool.hpp"
#include "_host/workspace.hpp"
#include "_kv/host_levels.hpp"
#include "_kv/host_slots.hpp"
#include "_kv/host_stream.hpp"
#include "kv_write/host_open.hpp"

TW_KV_LEVELS(kv_write, Table)

namespace tw::kv_write {
namespace {

bool check_element(const Call& call, const tw_tensor& k) {
  for (int32_t known : {TW_FP32, TW_BF16, TW_FP16}) {
    if (k.dtype == known) return true;
  }
  call.refuse("tensor \"k\" is %s; accepted: fp32, bf16, fp16", dtype_name(k.dtype));
  return false;
}

int32_t code_dtype(Format format, int32_t element) {
  return format == kFloat ? element : format == kKV4 ? TW_INT16 : TW_INT8;
}

Strided strided(const tw_tensor& t) {
  return {static_cast<char*>(t.data), kv::step(t, 0), kv::step(t, 1), t.ndim > 2 ? kv::step(t, 2) : 0};
}

// A tensor of `dtype` and this shape; its last dimension dense if `unit`. Null after refusing.
const tw_tensor* expect(const Call& call, const char* name, int32_t dtype, std::initializer_list<int64_t> shape,
                        bool unit = false) {
  const tw_tensor* t = call.require(name, static_cast<int32_t>(shape.size()));
  if (t == nullptr || !call.check_dtype(*t, dtype)) return nullptr;
  int32_t dim = 0;
  for (const int64_t size : shape) {
    if (!call.check_dim(*t, dim++, size)) return nullptr;
  }
  return unit && !kv::check_unit(call, *t) ? nullptr : t;
}

bool read_cache(const Call& call, const char* name, bool nz, Format format, int64_t pages, int64_t heads,
                int32_t element, Side* side) {
  const int32_t dtype = code_dtype(format, element);
  const int64_t size = dtype_size(dtype), lanes = format == kKV4 ? side->d / 4 : side->d;
  const int64_t chunk = 32 / size;
  const tw_tensor* t = nz ? expect(call, name, dtype, {pages, heads, (lanes + chunk - 1) / chunk, kv::kPage, chunk})
                          : expect(call, name, dtype, {pages, kv::kPage, heads, lanes});
  if (t == nullptr || !call.check_align(*t, 64) || !kv::check_dense(call, *t, 1)) return false;
  side->cache = static_cast<char*>(t->data);
  side->page_bytes = kv::step(*t, 0);
  side->row_bytes = lanes * size;
  return true;
}

// A cache's number of pages, before the rest of it is checked; -1 after refusing.
int64_t pages_of(const Call& call, bool nz) {
  const tw_tensor* t = call.require("k_cache", nz ? 5 : 4);
  return t == nullptr ? -1 : t->shape[0];
}

bool read_rows(const Call& call, const char* name, const tw_tensor& k, Format format, Side* side) {
  const tw_tensor* t = call.require(name, 3);
  if (t == nullptr || !call.check_dtype(*t, k.dtype) || !call.check_dim(*t, 0, k.shape[0]) ||
      !call.check_dim(*t, 1, k.shape[1])) {
    return false;
  }
  side->x = strided(*t);
  side->d = t->shape[2];
  if (format == kKV4 && side->d % 4 != 0) {
    call.refuse("tensor \"%s\" has heads of %lld channels; accepted with kv4: multiples of 4", name,
                static_cast<long long>(side->d));
    return false;
  }
  return true;
}

// Reciprocals of both sides' channel scales, kept by the calling thread until its next call.
bool read_channel_scales(const Call& call, const Table& table, Job* job) {
  thread_local Workspace memory;
  Layout layout;
  int64_t offset[2];
  Side* sides[] = {&job->key, &job->value};
  const char* names[] = {"k_channel_scale", "v_channel_scale"};
  for (int i = 0; i < 2; ++i) {
    sides[i]->inverse_row = table.row_floats(sides[i]->d);
    offset[i] = layout.add(job->heads * sides[i]->inverse_row * 4);
  }
  char* room = memory.get(std::max<int64_t>(1, layout.size()));
  if (room == nullptr) {
    call.fail("no memory for the scales of %lld heads", static_cast<long long>(job->heads));
    return false;
  }
  for (int i = 0; i < 2; ++i) {
    Side& side = *sides[i];
    const tw_tensor* t = expect(call, names[i], TW_FP32, {job->heads, side.d});
    if (t == nullptr) return false;
    auto* to = reinterpret_cast<float*>(room + offset[i]);
    side.inverse = to;
    const float* from = static_cast<const float*>(t->data);
    for (int64_t h = 0; h < job->heads; ++h) {
      table.reciprocals(from + h * t->stride[0], t->stride[1], side.d, to + h * side.inverse_row);
    }
  }
  return true;
}

bool read_scales(const Call& call, const Table& table, int64_t pages, Job* job) {
  const auto by_token = [&](const char* name, int32_t dtype, Strided* to) {
    const tw_tensor* t = expect(call, name, dtype, {pages, kv::kPage, job->heads});
    if (t != nullptr) *to = strided(*t);
    return t != nullptr;
  };
  const auto by_page = [&](const char* name, Strided* to) {
    const tw_tensor* t = expect(call, name, TW_FP16, {pages, job->heads, job->key.d}, true);
    if (t != nullptr) *to = strided(*t);
    return t != nullptr;
  };
  switch (job->format) {
    case kFloat:
      return true;
    case kC8S:
      return read_channel_scales(call, table, job);
    case kC8D:
      return by_token("k_token_scale", TW_FP32, &job->key.token_scale) &&
             by_token("v_token_scale", TW_FP32, &job->value.token_scale);
    case kKV4:
      return by_token("v_token_scale", TW_FP16, &job->value.token_scale) &&
             by_token("v_token_zero", TW_FP16, &job->value.token_zero) &&
             by_page("k_page_scale", &job->page_scale) && by_page("k_page_zero", &job->page_zero);
  }
  return false;
}

bool read_open(const Call& call, const kv::SlotPlan& plan, int64_t tokens, Job* job) {
  const tw_tensor* open = call.require("k_open", 4);
  if (open == nullptr || !call.check_dtype(*open, job->element) || !call.check_dim(*open, 1, kv::kPage) ||
      !call.check_dim(*open, 2, job->heads) || !call.check_dim(*open, 3, job->key.d) ||
      !kv::check_unit(call, *open)) {
    return false;
  }
  job->open = strided(*open);
  job->open_row = expect(call, "open_row", TW_INT32, {tokens});
  return job->open_row != nullptr && check_open_rows(call, plan, *job->open_row, open->shape[0]);
}

int run(const Call& call, const Job& job, const kv::SlotPlan& plan, int64_t bytes, const Table& table) {
  thread_local Workspace memory;
  const int threads = kv::threads_for(call, bytes, plan.size());
  const int64_t each =
      round_up(std::max(table.scratch_bytes(job.key.d, job.key.row_bytes),
                        table.scratch_bytes(job.value.d, job.value.row_bytes)),
               4096);
  char* scratch = memory.get(each * threads);
  if (scratch == nullptr) {
    return call.fail("no memory for rows of %lld and %lld channels", static_cast<long long>(job.key.d),
                     static_cast<long long>(job.value.d));
  }
  parallel_for(plan.size(), threads, [&](int64_t begin, int64_t end, int index) {
    table.write(job, plan.data() + begin, end - begin, scratch + index * each);
  });
  return TW_OK;
}

int kv_write(const Call& call) {
  Level level;
  if (!current_level(&level)) return call.refuse("%s", level_error());
  const int64_t format = call.attr("kv", kFloat), layout = call.attr("kv_layout", 0);
  if (format < kFloat || format > kKV4) {
    return call.refuse("kv is %lld; accepted: 0 (float), 1 (c8s), 2 (c8d) or 3 (kv4)",
                       static_cast<long long>(format));
  }
  if (layout != 0 && layout != 1) {
    return call.refuse("kv_layout is %lld; accepted: 0 (nd) or 1 (nz)", static_cast<long long>(layout));
  }
  const tw_tensor* k = call.require("k", 3);
  if (k == nullptr || !check_element(call, *k)) return TW_REFUSED;
  Job job{};
  job.format = static_cast<Format>(format);
  job.nz = layout == 1;
  job.element = k->dtype;
  job.element_size = dtype_size(k->dtype);
  job.heads = k->shape[1];
  const int64_t tokens = k->shape[0], pages = pages_of(call, job.nz);
  const Table& table = kernels_of(level);
  if (pages < 0 || !read_rows(call, "k", *k, job.format, &job.key) ||
      !read_rows(call, "v", *k, job.format, &job.value) ||
      !read_cache(call, "k_cache", job.nz, job.format, pages, job.heads, job.element, &job.key) ||
      !read_cache(call, "v_cache", job.nz, job.format, pages, job.heads, job.element, &job.value) ||
      !read_scales(call, table, pages, &job)) {
    return TW_REFUSED;
  }
  thread_local kv::SlotPlan plan;
  const tw_tensor* slots = expect(call, "slots", TW_INT32, {tokens});
  if (slots == nullptr || !plan.read(call, *slots, pages, true)) return TW_REFUSED;
  if (job.format == kKV4 && !read_open(call, plan, tokens, &job)) return TW_REFUSED;
  const int64_t written = plan.written() * job.heads * (job.key.row_bytes + job.value.row_bytes);
  if (!kv::read_stream(call, written, &job.stream)) return TW_REFUSED;
  const int64_t bytes = written + plan.written() * job.heads * (job.key.d + job.value.d) * job.element_size;
  return run(call, job, plan, bytes, table);
}

}  // namespace
}  // namespace tw::kv_write

TW_EXPORT int tw_host_kv_write(const tw_call* call) { return tw::kv_write::kv_write(tw::Call(*call)); }
