// Quantised pages with residuals on the CPU: argument checks and the division among threads.
#include <algorithm>

#include "_host/call.hpp"
#include "_host/export.hpp"
#include "_host/levels.hpp"
#include "_host/thread_pool.hpp"
#include "_host/workspace.hpp"
#include "_kv/host_stream.hpp"
#include "kv_residual/host_places.hpp"

TW_LEVELS(kv_residual, Table)

namespace tw::kv_residual {
namespace {

bool read_flags(const Call& call, Job* job) {
  const int64_t format = call.attr("kv", kC8S), residual = call.attr("residual", 0);
  if (format < kC8S || format > kValue4) {
    call.refuse("kv is %lld; accepted: 0 (c8s), 1 (c8d), 2 (kv4_key) or 3 (kv4_value)",
                static_cast<long long>(format));
    return false;
  }
  if (residual != 0 && residual != 1) {
    call.refuse("residual is %lld; accepted: 0 (nested) or 1 (e3m0)", static_cast<long long>(residual));
    return false;
  }
  job->format = static_cast<Format>(format);
  job->e3m0 = residual == 1;
  return kv::read_layout(call, &job->nz);
}

bool read_rows(const Call& call, const tw_tensor& rows, Job* job) {
  if (!kv::check_float(call, rows) || !call.check_dim(rows, 1, kv::kPage)) return false;
  job->element = rows.dtype;
  job->element_size = dtype_size(rows.dtype);
  job->heads = rows.shape[2];
  job->d = rows.shape[3];
  job->rows = kv::strided(rows);
  if (job->d % 4 == 0) return true;
  call.refuse("tensor \"%s\" has heads of %lld channels; accepted: multiples of 4", rows.name,
              static_cast<long long>(job->d));
  return false;
}

// Channel scales and their reciprocals in rows of their own, kept by the calling thread until its next call.
bool read_channel_scale(const Call& call, const Table& table, Job* job) {
  thread_local Workspace memory;
  const tw_tensor* t = kv::expect(call, "channel_scale", TW_FP32, {job->heads, job->d});
  if (t == nullptr) return false;
  job->channel_row = table.row_floats(job->d);
  const int64_t floats = job->heads * job->channel_row;
  char* room = memory.get(std::max<int64_t>(1, 2 * floats * 4));
  if (room == nullptr) {
    call.fail("no memory for the scales of %lld heads", static_cast<long long>(job->heads));
    return false;
  }
  auto* copy = reinterpret_cast<float*>(room);
  for (int64_t h = 0; h < job->heads; ++h) {
    float* to = copy + h * job->channel_row;
    table.channel_rows(static_cast<const float*>(t->data) + h * t->stride[0], t->stride[1], job->d, to,
                       to + floats);
  }
  job->channel_scale = copy;
  job->inverse = copy + floats;
  return true;
}

bool read_scales(const Call& call, const Table& table, int64_t pages, Job* job) {
  const auto by_token = [&](const char* name, int32_t dtype, kv::Strided* to) {
    return kv::read_strided(call, name, dtype, {pages, kv::kPage, job->heads}, to);
  };
  const auto by_page = [&](const char* name, kv::Strided* to) {
    return kv::read_strided(call, name, TW_FP16, {pages, job->heads, job->d}, to, true);
  };
  switch (job->format) {
    case kC8S:
      return read_channel_scale(call, table, job);
    case kC8D:
      return by_token("token_scale", TW_FP32, &job->token_scale);
    case kKey4:
      return by_page("page_scale", &job->page_scale) && by_page("page_zero", &job->page_zero);
    case kValue4:
      return by_token("token_scale", TW_FP16, &job->token_scale) &&
             by_token("token_zero", TW_FP16, &job->token_zero);
  }
  return false;
}

bool read_pools(const Call& call, int64_t pages, Job* job, Pools* pools) {
  const tw_tensor* pool = call.require("pool", 2);
  const tw_tensor* fpool = pool == nullptr ? nullptr : call.require("fpool", 2);
  if (fpool == nullptr) return false;
  *pools = {pool->shape[0], fpool->shape[0]};
  return kv::read_strided(call, "pool", TW_INT16, {pools->rows, job->d / 4}, &job->pool, true) &&
         kv::read_strided(call, "fpool", job->element, {pools->frows, job->d}, &job->fpool, true) &&
         (!job->e3m0 || kv::read_strided(call, "pool_scale", TW_FP32, {pools->rows}, &job->pool_scale)) &&
         kv::read_strided(call, "mask", TW_INT16, {pages, job->heads}, &job->mask) &&
         kv::read_strided(call, "rank", TW_INT32, {pages, job->heads}, &job->rank) &&
         kv::read_strided(call, "fmask", TW_INT16, {pages, job->heads}, &job->fmask) &&
         kv::read_strided(call, "frank", TW_INT32, {pages, job->heads}, &job->frank);
}

int run(const Call& call, const Job& job, int64_t parts, bool write, const Table& table) {
  thread_local Workspace memory;
  const int64_t bytes = parts * kv::kPage * (job.codes.row_bytes + job.d * job.element_size);
  const int threads = kv::threads_for(call, bytes, parts);
  const int64_t each = round_up(table.scratch_bytes(job.d, job.codes.row_bytes), 4096);
  char* scratch = memory.get(each * threads);
  if (scratch == nullptr) {
    return call.fail("no memory for pages of %lld channels", static_cast<long long>(job.d));
  }
  parallel_for(parts, threads, [&](int64_t begin, int64_t end, int index) {
    (write ? table.write : table.read)(job, begin, end, scratch + index * each);
  });
  return TW_OK;
}

// Places of the selected vectors, and the counters that follow from them.
bool place(const Call& call, const Job& job, int64_t n, const Pools& pools, Place* places, int64_t used[2]) {
  const tw_tensor* select = kv::expect(call, "select", TW_UINT8, {n, kv::kPage, job.heads});
  const tw_tensor* before = select == nullptr ? nullptr : kv::expect(call, "used_before", TW_INT32, {2});
  if (before == nullptr || kv::expect(call, "used_after", TW_INT32, {2}) == nullptr) return false;
  const auto* counters = static_cast<const int32_t*>(before->data);
  used[0] = counters[0];
  used[1] = counters[before->stride[0]];
  return place_selected(call, *select, pools, used, places);
}

int kv_residual(const Call& call) {
  Level level;
  if (!current_level(&level)) return call.refuse("%s", level_error());
  const int64_t direction = call.attr("direction", 0);
  if (direction != 0 && direction != 1) {
    return call.refuse("direction is %lld; accepted: 0 (write) or 1 (read)",
                       static_cast<long long>(direction));
  }
  const bool write = direction == 0;
  Job job{};
  Pools pools{};
  const Table& table = kernels_of(level);
  if (!read_flags(call, &job)) return TW_REFUSED;
  const tw_tensor* rows = call.require(write ? "x" : "y", 4);
  if (rows == nullptr || !read_rows(call, *rows, &job)) return TW_REFUSED;
  const bool half = job.format >= kKey4;
  const int64_t n = rows->shape[0], pages = kv::page_count(call, "codes", job.nz);
  if (pages < 0 ||
      !kv::read_pages(call, "codes", job.nz, half ? TW_INT16 : TW_INT8, pages, job.heads,
                      half ? job.d / 4 : job.d, &job.codes) ||
      !read_scales(call, table, pages, &job) || !read_pools(call, pages, &job, &pools)) {
    return TW_REFUSED;
  }
  job.page_ids = kv::expect(call, "page_ids", TW_INT32, {n});
  if (job.page_ids == nullptr || !check_pages(call, *job.page_ids, pages, write)) return TW_REFUSED;
  thread_local Workspace memory;
  char* room = memory.get(std::max<int64_t>(1, n * job.heads * static_cast<int64_t>(sizeof(Place))));
  if (room == nullptr) return call.fail("no memory for %lld pages", static_cast<long long>(n));
  auto* places = reinterpret_cast<Place*>(room);
  job.places = places;
  int64_t used[2];
  if (write ? !place(call, job, n, pools, places, used) : !read_places(call, job, n, pools, places)) {
    return TW_REFUSED;
  }
  if (write) {
    const tw_tensor* after = call.tensor("used_after");
    for (int i = 0; i < 2; ++i) {
      static_cast<int32_t*>(after->data)[i * after->stride[0]] = static_cast<int32_t>(used[i]);
    }
  }
  return run(call, job, n * job.heads, write, table);
}

}  // namespace
}  // namespace tw::kv_residual

TW_EXPORT int tw_host_kv_residual(const tw_call* call) {
  return tw::kv_residual::kv_residual(tw::Call(*call));
}
