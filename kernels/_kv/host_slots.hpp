// Slot lists of a paged cache: checked whole, then cut into runs, before any page is touched.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "_host/call.hpp"
#include "_host/workspace.hpp"
#include "_kv/host_tensors.hpp"

namespace tw::kv {

// `count` neighbouring tokens of a call from `token` on: tokens `first`... of `page`, or skipped (page -1).
struct Run {
  int32_t token, page, first, count;
};

class SlotPlan {
 public:
  // Reads slots [T] for a cache of `pages` pages. Refuses one out of range and, if `distinct`, one that
  // stands twice; false then.
  bool read(const Call& call, const tw_tensor& slots, int64_t pages, bool distinct) {
    const int64_t tokens = slots.shape[0];
    char* room = runs_.get(std::max<int64_t>(1, tokens) * static_cast<int64_t>(sizeof(Run)));
    if (room == nullptr) {
      call.fail("no memory for a list of %lld slots", static_cast<long long>(tokens));
      return false;
    }
    data_ = reinterpret_cast<Run*>(room);
    size_ = 0;
    written_ = 0;
    for (int64_t i = 0; i < tokens; ++i) {
      const int64_t slot = value(slots, i);
      if (slot < -1 || slot >= pages * kPage) {
        call.refuse("slots[%lld] is %lld; accepted: -1 (skipped) or 0 to %lld for %lld pages",
                    static_cast<long long>(i), static_cast<long long>(slot),
                    static_cast<long long>(pages * kPage - 1), static_cast<long long>(pages));
        return false;
      }
      append(static_cast<int32_t>(i), static_cast<int32_t>(slot));
    }
    return !distinct || check_distinct(call, slots);
  }

  const Run* data() const { return data_; }
  int64_t size() const { return size_; }
  int64_t written() const { return written_; }  // tokens that are not skipped

  static int32_t value(const tw_tensor& ids, int64_t i) {
    return static_cast<const int32_t*>(ids.data)[i * ids.stride[0]];
  }

 private:
  void append(int32_t token, int32_t slot) {
    const bool skipped = slot < 0;
    const int32_t page = skipped ? -1 : slot / static_cast<int32_t>(kPage);
    const int32_t first = skipped ? 0 : slot % static_cast<int32_t>(kPage);
    written_ += !skipped;
    if (size_ != 0) {
      Run& last = data_[size_ - 1];
      if (last.page == page && (skipped || last.first + last.count == first)) {
        ++last.count;
        return;
      }
    }
    data_[size_++] = {token, page, first, 1};
  }

  // One entry a page, in a table with open addressing.
  bool check_distinct(const Call& call, const tw_tensor& slots) {
    struct Seen {
      int32_t page, tokens;
    };
    int64_t room = 16;
    while (room < 2 * size_) room *= 2;
    char* memory = seen_.get(room * static_cast<int64_t>(sizeof(Seen)));
    if (memory == nullptr) {
      call.fail("no memory to look for slots that stand twice among %lld",
                static_cast<long long>(slots.shape[0]));
      return false;
    }
    Seen* table = reinterpret_cast<Seen*>(memory);
    std::memset(memory, 0xff, static_cast<size_t>(room) * sizeof(Seen));
    for (const Run* run = data_; run != data_ + size_; ++run) {
      if (run->page < 0) continue;
      uint64_t at = static_cast<uint32_t>(run->page) * UINT64_C(0x9e3779b97f4a7c15) >> 32;
      for (at &= static_cast<uint64_t>(room - 1); table[at].page >= 0 && table[at].page != run->page;) {
        at = (at + 1) & static_cast<uint64_t>(room - 1);
      }
      Seen& seen = table[at];
      if (seen.page < 0) seen = {run->page, 0};
      const int32_t tokens = ((1 << run->count) - 1) << run->first;
      if ((seen.tokens & tokens) != 0) return refuse_twice(call, slots, *run, seen.tokens & tokens);
      seen.tokens |= tokens;
    }
    return true;
  }

  static bool refuse_twice(const Call& call, const tw_tensor& slots, const Run& run, int32_t tokens) {
    const int32_t token = __builtin_ctz(static_cast<uint32_t>(tokens));
    const int64_t later = run.token + token - run.first;
    int64_t earlier = 0;
    while (value(slots, earlier) != value(slots, later)) ++earlier;
    call.refuse("slots[%lld] and slots[%lld] are both %d; accepted: every slot once",
                static_cast<long long>(earlier), static_cast<long long>(later), value(slots, later));
    return false;
  }

  Workspace runs_, seen_;
  Run* data_ = nullptr;
  int64_t size_ = 0, written_ = 0;
};

}  // namespace tw::kv
