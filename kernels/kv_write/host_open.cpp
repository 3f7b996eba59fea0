// Which rows of k_open a call reads and writes, checked before either.
#include "kv_write/host_open.hpp"

#include <algorithm>

namespace tw::kv_write {
namespace {

// A page or a row of k_open, and the run that uses it.
struct Use {
  int64_t what;
  int32_t token;
};

bool before(const Use& a, const Use& b) { return a.what != b.what ? a.what < b.what : a.token < b.token; }

// The first two uses of the same thing, or null.
const Use* twice(Use* uses, int64_t count) {
  std::sort(uses, uses + count, before);
  for (int64_t i = 1; i < count; ++i) {
    if (uses[i - 1].what == uses[i].what) return uses + i - 1;
  }
  return nullptr;
}

bool check_rows_of_runs(const Call& call, const kv::SlotPlan& plan, const tw_tensor& open_row, int64_t rows) {
  for (const kv::Run* run = plan.data(); run != plan.data() + plan.size(); ++run) {
    if (run->page < 0) continue;
    const int32_t row = kv::SlotPlan::value(open_row, run->token);
    if (row < 0 || row >= rows) {
      call.refuse("open_row[%d] is %d; accepted: 0 to %lld", run->token, row,
                  static_cast<long long>(rows - 1));
      return false;
    }
    for (int32_t t = run->token + 1; t < run->token + run->count; ++t) {
      if (kv::SlotPlan::value(open_row, t) == row) continue;
      call.refuse("open_row[%d] is %d and open_row[%d] is %d; accepted: one row for tokens of one page",
                  run->token, row, t, kv::SlotPlan::value(open_row, t));
      return false;
    }
  }
  return true;
}

}  // namespace

bool check_open_rows(const Call& call, const kv::SlotPlan& plan, const tw_tensor& open_row, int64_t rows) {
  if (!check_rows_of_runs(call, plan, open_row, rows)) return false;
  thread_local Workspace memory;
  char* room = memory.get(2 * (plan.size() + 1) * static_cast<int64_t>(sizeof(Use)));
  if (room == nullptr) {
    call.fail("no memory to check %lld runs of tokens", static_cast<long long>(plan.size()));
    return false;
  }
  Use* pages = reinterpret_cast<Use*>(room);
  Use* used = pages + plan.size();
  int64_t page_count = 0, used_count = 0;
  for (const kv::Run* run = plan.data(); run != plan.data() + plan.size(); ++run) {
    if (run->page < 0) continue;
    pages[page_count++] = {run->page, run->token};
    // A page that comes whole needs no row.
    if (run->count < kv::kPage) used[used_count++] = {kv::SlotPlan::value(open_row, run->token), run->token};
  }
  if (const Use* found = twice(pages, page_count)) {
    call.refuse(
        "tokens %d and %d are both of page %lld, and others stand between them; accepted with kv4: tokens "
        "of a page as neighbours in ascending order",
        found[0].token, found[1].token, static_cast<long long>(found->what));
    return false;
  }
  if (const Use* found = twice(used, used_count)) {
    call.refuse(
        "tokens %d and %d are of two pages that both need row %lld of \"k_open\"; accepted: a row for one "
        "page a call",
        found[0].token, found[1].token, static_cast<long long>(found->what));
    return false;
  }
  return true;
}

}  // namespace tw::kv_write
