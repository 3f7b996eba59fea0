// Rows of the pools: given out, or read and checked, before any page is touched.
#include "kv_residual/host_places.hpp"

#include <algorithm>
#include <cstring>

#include "_host/workspace.hpp"

namespace tw::kv_residual {
namespace {

int32_t id(const tw_tensor& page_ids, int64_t n) {
  return static_cast<const int32_t*>(page_ids.data)[n * page_ids.stride[0]];
}

bool check_distinct(const Call& call, const tw_tensor& page_ids) {
  thread_local Workspace memory;
  const int64_t count = page_ids.shape[0];
  char* room = memory.get(std::max<int64_t>(1, count * 4));
  if (room == nullptr) {
    call.fail("no memory to check %lld pages", static_cast<long long>(count));
    return false;
  }
  auto* sorted = reinterpret_cast<int32_t*>(room);
  for (int64_t n = 0; n < count; ++n) sorted[n] = id(page_ids, n);
  std::sort(sorted, sorted + count);
  const int32_t* twice = std::adjacent_find(sorted, sorted + count);
  if (twice == sorted + count) return true;
  call.refuse("page %d stands twice in \"page_ids\"; accepted: every page once", *twice);
  return false;
}

// A run of `count` vectors from *next on: its first row, or -1 where it ends beyond `rows`.
int64_t take(int64_t count, int64_t rows, int64_t* next, int64_t* used) {
  const int64_t first = *next;
  *next += count;
  if (count == 0 || *next > rows) return -1;
  *used = *next;
  return first;
}

bool check_used(const Call& call, int which, int64_t used, int64_t rows) {
  if (used >= 0 && used <= rows) return true;
  call.refuse("used_before[%d] is %lld; accepted: 0 to %lld, the rows of \"%s\"", which,
              static_cast<long long>(used), static_cast<long long>(rows), which == 0 ? "pool" : "fpool");
  return false;
}

template <class T>
T got(const char* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

bool check_run(const Call& call, const char* what, uint32_t mask, int32_t rank, int64_t rows, int32_t page,
               int64_t h) {
  const int64_t count = __builtin_popcount(mask);
  if (count == 0 || (rank >= 0 && rank + count <= rows)) return true;
  call.refuse("\"%s\" of page %d, head %lld is %d with %lld vectors; accepted: within the pool's %lld rows",
              what, page, static_cast<long long>(h), rank, static_cast<long long>(count),
              static_cast<long long>(rows));
  return false;
}

}  // namespace

bool check_pages(const Call& call, const tw_tensor& page_ids, int64_t pages, bool distinct) {
  for (int64_t n = 0; n < page_ids.shape[0]; ++n) {
    if (id(page_ids, n) >= 0 && id(page_ids, n) < pages) continue;
    call.refuse("page_ids[%lld] is %d; accepted: 0 to %lld", static_cast<long long>(n), id(page_ids, n),
                static_cast<long long>(pages - 1));
    return false;
  }
  return !distinct || check_distinct(call, page_ids);
}

bool place_selected(const Call& call, const tw_tensor& select, const Pools& pools, int64_t used[2],
                    Place* places) {
  if (!check_used(call, 0, used[0], pools.rows) || !check_used(call, 1, used[1], pools.frows)) return false;
  const auto* data = static_cast<const uint8_t*>(select.data);
  const int64_t heads = select.shape[2];
  int64_t next[2] = {used[0], used[1]};
  for (int64_t n = 0; n < select.shape[0]; ++n) {
    for (int64_t h = 0; h < heads; ++h) {
      uint32_t masks[3] = {};
      for (int64_t t = 0; t < kv::kPage; ++t) {
        const uint8_t kind = data[n * select.stride[0] + t * select.stride[1] + h * select.stride[2]];
        if (kind > 2) {
          call.refuse("select[%lld,%lld,%lld] is %d; accepted: 0 (plain), 1 (residual) or 2 (float)",
                      static_cast<long long>(n), static_cast<long long>(t), static_cast<long long>(h), kind);
          return false;
        }
        masks[kind] |= 1u << t;
      }
      const int64_t first = take(__builtin_popcount(masks[1]), pools.rows, &next[0], &used[0]);
      const int64_t ffirst = take(__builtin_popcount(masks[2]), pools.frows, &next[1], &used[1]);
      *places++ = {first < 0 ? 0 : masks[1], ffirst < 0 ? 0 : masks[2],
                   static_cast<int32_t>(std::max<int64_t>(0, first)),
                   static_cast<int32_t>(std::max<int64_t>(0, ffirst))};
    }
  }
  return true;
}

bool read_places(const Call& call, const Job& job, int64_t n, const Pools& pools, Place* places) {
  for (int64_t i = 0; i < n; ++i) {
    const int32_t page = id(*job.page_ids, i);
    for (int64_t h = 0; h < job.heads; ++h, ++places) {
      *places = {got<uint16_t>(job.mask.at(page, h)), got<uint16_t>(job.fmask.at(page, h)),
                 got<int32_t>(job.rank.at(page, h)), got<int32_t>(job.frank.at(page, h))};
      if ((places->mask & places->fmask) != 0) {
        call.refuse(
            "token %d of page %d, head %lld stands in \"mask\" and in \"fmask\"; accepted: one of them",
            __builtin_ctz(places->mask & places->fmask), page, static_cast<long long>(h));
        return false;
      }
      if (!check_run(call, "rank", places->mask, places->rank, pools.rows, page, h) ||
          !check_run(call, "frank", places->fmask, places->frank, pools.frows, page, h)) {
        return false;
      }
    }
  }
  return true;
}

}  // namespace tw::kv_residual
