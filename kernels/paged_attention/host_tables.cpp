#include <bit>
#include <initializer_list>

#include "paged_attention/host_read.hpp"

namespace tw::paged {
namespace {

bool check_queries(const Call& call, const Problem& p) {
  int64_t before = 0;
  for (int64_t i = 0; i <= p.sequences; ++i) {
    const int64_t at = p.cu_q.i32(i);
    const bool edge = (i == 0 && at != 0) || (i == p.sequences && at != p.tq);
    if (at < before || at > p.tq || edge) {
      call.refuse("cu_q[%lld] is %lld; accepted: 0 first, never falling, %lld queries last",
                  static_cast<long long>(i), static_cast<long long>(at), static_cast<long long>(p.tq));
      return false;
    }
    before = at;
  }
  return true;
}

// Masks of a used page must be disjoint, and their runs lie within the pools.
bool check_selected(const Call& call, const Side& side, int64_t page, int64_t head) {
  const char* which = side.key ? "k_" : "v_";
  const uint32_t mask = side.residuals.mask.bits16(page, head), fmask = side.floats.mask.bits16(page, head);
  if ((mask & fmask) != 0) {
    call.refuse("%smask and %sfmask of page %lld, head %lld share a token (0x%04x, 0x%04x)", which, which,
                static_cast<long long>(page), static_cast<long long>(head), mask, fmask);
    return false;
  }
  for (const Selected* s : {&side.residuals, &side.floats}) {
    const uint32_t bits = s == &side.residuals ? mask : fmask;
    if (bits == 0) continue;
    const int64_t rank = s->rank.i32(page, head), count = std::popcount(bits);
    if (rank >= 0 && rank + count <= s->count) continue;
    call.refuse("%s%srank of page %lld, head %lld is %lld for %lld rows; accepted: within a pool of %lld",
                which, s == &side.residuals ? "" : "f", static_cast<long long>(page),
                static_cast<long long>(head), static_cast<long long>(rank), static_cast<long long>(count),
                static_cast<long long>(s->count));
    return false;
  }
  return true;
}

bool check_sequence(const Call& call, const Problem& p, int64_t i) {
  const int64_t length = p.seq_lens.i32(i);
  if (length < 0 || length > p.table_width * kPage) {
    call.refuse("seq_lens[%lld] is %lld; accepted: 0 to %lld, the tokens of %lld pages",
                static_cast<long long>(i), static_cast<long long>(length),
                static_cast<long long>(p.table_width * kPage), static_cast<long long>(p.table_width));
    return false;
  }
  const int64_t pages = (length + kPage - 1) / kPage;
  for (int64_t j = 0; j < pages; ++j) {
    const int64_t page = p.block_table.i32(i, j);
    if (page < 0 || page >= p.pages) {
      call.refuse("block_table[%lld, %lld] is page %lld; accepted: 0 to %lld", static_cast<long long>(i),
                  static_cast<long long>(j), static_cast<long long>(page),
                  static_cast<long long>(p.pages - 1));
      return false;
    }
    if (p.residual == kNone) continue;
    const bool open = p.kv == kKv4 && (j + 1) * kPage > length;
    for (int64_t h = 0; h < p.heads; ++h) {
      if (!open && !check_selected(call, p.k, page, h)) return false;
      if (!check_selected(call, p.v, page, h)) return false;
    }
  }
  return true;
}

}  // namespace

bool check_tables(const Call& call, const Problem& p) {
  if (!check_queries(call, p)) return false;
  for (int64_t i = 0; i < p.sequences; ++i) {
    if (!check_sequence(call, p, i)) return false;
  }
  return true;
}

}  // namespace tw::paged
