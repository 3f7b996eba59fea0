// Tokens to and from NZ pages on the CPU: argument checks and the division among threads.
#include <algorithm>

#include "_host/call.hpp"
#include "_host/export.hpp"
#include "_host/levels.hpp"
#include "_host/thread_pool.hpp"
#include "_host/workspace.hpp"
#include "_kv/host_slots.hpp"
#include "_kv/host_stream.hpp"
#include "nz_kv/host_kernels.hpp"

TW_LEVELS(nz_kv, Table)

namespace tw::nz_kv {
namespace {

constexpr int64_t kChunkBytes = 32;

bool check_element(const Call& call, const tw_tensor& pages) {
  for (int32_t known : {TW_FP32, TW_BF16, TW_FP16, TW_INT8}) {
    if (pages.dtype == known) return true;
  }
  call.refuse("tensor \"pages\" is %s; accepted: fp32, bf16, fp16, int8", dtype_name(pages.dtype));
  return false;
}

bool check_shapes(const Call& call, const tw_tensor& rows, const tw_tensor& slots, const tw_tensor& pages) {
  const int64_t lanes = kChunkBytes / dtype_size(pages.dtype);
  return call.check_dtype(rows, pages.dtype) && call.check_dtype(slots, TW_INT32) &&
         call.check_dim(slots, 0, rows.shape[0]) && call.check_dim(pages, 1, rows.shape[1]) &&
         call.check_dim(pages, 2, (rows.shape[2] + lanes - 1) / lanes) &&
         call.check_dim(pages, 3, kv::kPage) && call.check_dim(pages, 4, lanes) &&
         call.check_align(pages, 64) && kv::check_dense(call, pages, 1);
}

int run(const Call& call, const Job& job, const kv::SlotPlan& plan, bool write, bool stream,
        const Table& table) {
  thread_local Workspace memory;
  const int64_t bytes = 2 * plan.written() * job.heads * job.row_bytes;
  const int threads = kv::threads_for(call, bytes, plan.size());
  const int64_t each = round_up(scratch_bytes(job), 4096);
  char* scratch = memory.get(std::max<int64_t>(1, each * threads));
  if (scratch == nullptr) {
    return call.fail("no memory for rows of %lld bytes", static_cast<long long>(job.row_bytes));
  }
  const kv::Run* runs = plan.data();
  parallel_for(plan.size(), threads, [&](int64_t begin, int64_t end, int index) {
    if (write) {
      table.write(job, runs + begin, end - begin, stream, scratch + index * each);
    } else {
      table.read(job, runs + begin, end - begin, scratch + index * each);
    }
  });
  return TW_OK;
}

int nz_kv(const Call& call) {
  Level level;
  if (!current_level(&level)) return call.refuse("%s", level_error());
  const int64_t direction = call.attr("direction", 0);
  if (direction != 0 && direction != 1) {
    return call.refuse("direction is %lld; accepted: 0 (write) or 1 (read)",
                       static_cast<long long>(direction));
  }
  const bool write = direction == 0;
  const tw_tensor* rows = call.require(write ? "x" : "y", 3);
  const tw_tensor* slots = rows == nullptr ? nullptr : call.require("slots", 1);
  const tw_tensor* pages = slots == nullptr ? nullptr : call.require("pages", 5);
  if (pages == nullptr || !check_element(call, *pages) || !check_shapes(call, *rows, *slots, *pages)) {
    return TW_REFUSED;
  }
  thread_local kv::SlotPlan plan;
  bool stream = false;
  if (!plan.read(call, *slots, pages->shape[0], write)) return TW_REFUSED;
  const int64_t size = dtype_size(pages->dtype);
  const Job job = {
      .rows = {static_cast<char*>(rows->data), kv::step(*rows, 0), kv::step(*rows, 1),
               rows->shape[2] > 1 ? kv::step(*rows, 2) : size, size},
      .pages = static_cast<char*>(pages->data),
      .page_bytes = kv::step(*pages, 0),
      .heads = rows->shape[1],
      .row_bytes = rows->shape[2] * size,
  };
  if (!kv::read_stream(call, plan.written() * job.heads * job.row_bytes, &stream)) return TW_REFUSED;
  return run(call, job, plan, write, stream, kernels_of(level));
}

}  // namespace
}  // namespace tw::nz_kv

TW_EXPORT int tw_host_nz_kv(const tw_call* call) { return tw::nz_kv::nz_kv(tw::Call(*call)); }
