// New keys and values into a paged cache on the CPU: argument checks and the division among threads.
#include <algorithm>

#include "_host/call.hpp"
#include "_host/export.hpp"
#include "_host/levels.hpp"
#include "_host/thread_pool.hpp"
#include "_host/workspace.hpp"
#include "_kv/host_slots.hpp"
#include "_kv/host_stream.hpp"
#include "kv_write/host_open.hpp"

TW_LEVELS(kv_write, Table)

namespace tw::kv_write {
namespace {

int32_t code_dtype(Format format, int32_t element) {
  return format == kFloat ? element : format == kKV4 ? TW_INT16 : TW_INT8;
}

bool read_cache(const Call& call, const char* name, const Job& job, int64_t pages, Side* side) {
  const int64_t lanes = job.format == kKV4 ? side->d / 4 : side->d;
  return kv::read_pages(call, name, job.nz, code_dtype(job.format, job.element), pages, job.heads, lanes,
                        &side->cache);
}

bool read_rows(const Call& call, const char* name, const tw_tensor& k, Format format, Side* side) {
  const tw_tensor* t = call.require(name, 3);
  if (t == nullptr || !call.check_dtype(*t, k.dtype) || !call.check_dim(*t, 0, k.shape[0]) ||
      !call.check_dim(*t, 1, k.shape[1])) {
    return false;
  }
  side->x = kv::strided(*t);
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
    const tw_tensor* t = kv::expect(call, names[i], TW_FP32, {job->heads, side.d});
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
  const auto by_token = [&](const char* name, int32_t dtype, kv::Strided* to) {
    return kv::read_strided(call, name, dtype, {pages, kv::kPage, job->heads}, to);
  };
  const auto by_page = [&](const char* name, kv::Strided* to) {
    return kv::read_strided(call, name, TW_FP16, {pages, job->heads, job->key.d}, to, true);
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
  job->open = kv::strided(*open);
  job->open_row = kv::expect(call, "open_row", TW_INT32, {tokens});
  return job->open_row != nullptr && check_open_rows(call, plan, *job->open_row, open->shape[0]);
}

int run(const Call& call, const Job& job, const kv::SlotPlan& plan, int64_t bytes, const Table& table) {
  thread_local Workspace memory;
  const int threads = kv::threads_for(call, bytes, plan.size());
  const int64_t each = round_up(std::max(table.scratch_bytes(job.key.d, job.key.cache.row_bytes),
                                         table.scratch_bytes(job.value.d, job.value.cache.row_bytes)),
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
  const int64_t format = call.attr("kv", kFloat);
  if (format < kFloat || format > kKV4) {
    return call.refuse("kv is %lld; accepted: 0 (float), 1 (c8s), 2 (c8d) or 3 (kv4)",
                       static_cast<long long>(format));
  }
  const tw_tensor* k = call.require("k", 3);
  if (k == nullptr || !kv::check_float(call, *k)) return TW_REFUSED;
  Job job{};
  if (!kv::read_layout(call, &job.nz)) return TW_REFUSED;
  job.format = static_cast<Format>(format);
  job.element = k->dtype;
  job.element_size = dtype_size(k->dtype);
  job.heads = k->shape[1];
  const int64_t tokens = k->shape[0], pages = kv::page_count(call, "k_cache", job.nz);
  const Table& table = kernels_of(level);
  if (pages < 0 || !read_rows(call, "k", *k, job.format, &job.key) ||
      !read_rows(call, "v", *k, job.format, &job.value) ||
      !read_cache(call, "k_cache", job, pages, &job.key) ||
      !read_cache(call, "v_cache", job, pages, &job.value) || !read_scales(call, table, pages, &job)) {
    return TW_REFUSED;
  }
  thread_local kv::SlotPlan plan;
  const tw_tensor* slots = kv::expect(call, "slots", TW_INT32, {tokens});
  if (slots == nullptr || !plan.read(call, *slots, pages, true)) return TW_REFUSED;
  if (job.format == kKV4 && !read_open(call, plan, tokens, &job)) return TW_REFUSED;
  const int64_t written = plan.written() * job.heads * (job.key.cache.row_bytes + job.value.cache.row_bytes);
  if (!kv::read_stream(call, written, &job.stream)) return TW_REFUSED;
  const int64_t bytes = written + plan.written() * job.heads * (job.key.d + job.value.d) * job.element_size;
  return run(call, job, plan, bytes, table);
}

}  // namespace
}  // namespace tw::kv_write

TW_EXPORT int tw_host_kv_write(const tw_call* call) { return tw::kv_write::kv_write(tw::Call(*call)); }
