#include "_pages/page_pool.hpp"

#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string>

namespace tw::pages {
namespace {

constexpr int kStripeBits = 6;
constexpr int kWindow = 16;  // bits of a word that a thread keeps to after it met another one there

std::atomic<uint32_t> threads_seen{0};
std::atomic<uint32_t> pools_made{0};
thread_local constinit uint32_t thread_number = 0;  // from 1

// The stripe of the calling thread; threads in the order of their first allocation have different ones.
uint32_t stripe() {
  if (thread_number == 0) thread_number = threads_seen.fetch_add(1, std::memory_order_relaxed) + 1;
  return (thread_number - 1) % (1u << kStripeBits);
}

// The stripes' first words: 0, then halves, quarters, eighths, ... of the pool, so that few threads stand far
// apart.
uint32_t first_word(uint32_t stripe, int64_t words) {
  uint32_t reversed = 0;
  for (int i = 0; i < kStripeBits; ++i) reversed |= (stripe >> i & 1u) << (kStripeBits - 1 - i);
  return static_cast<uint32_t>(words * reversed >> kStripeBits);
}

// The lowest `count` set bits.
uint64_t lowest(uint64_t bits, int64_t count) {
  if (std::popcount(bits) <= count) return bits;
  uint64_t rest = bits;
  for (int64_t i = 0; i < count; ++i) rest &= rest - 1;
  return bits ^ rest;
}

// `count` bits from `first` on.
uint64_t neighbours(int64_t first, int64_t count) { return ~uint64_t{0} >> (64 - count) << first; }

// How many handles, at most to the end of the word, are page after page.
int64_t ascending(std::span<const Handle> handles) {
  const Handle first = handles[0];
  const int64_t room = 64 - static_cast<int64_t>(first & 63);
  const int64_t count = std::ssize(handles) < room ? std::ssize(handles) : room;
  uint64_t other = 0;
  for (int64_t i = 0; i < count; ++i) other |= handles[i] ^ (first + static_cast<Handle>(i));
  return other == 0 ? count : 0;
}

}  // namespace

thread_local constinit Hint thread_hints[kHints] __attribute__((tls_model("initial-exec"))) = {};

template <bool kChecked>
void BasicPagePool<kChecked>::FreeZeroed::operator()(void* data) const {
  std::free(data);
}

template <bool kChecked>
template <class T>
auto BasicPagePool<kChecked>::zeroed(int64_t count) -> Zeroed<T> {
  // Zero bytes are a zero atomic: lock-free atomics have the representation of their value.
  static_assert(std::atomic<uint64_t>::is_always_lock_free && std::atomic<uint32_t>::is_always_lock_free);
  void* data = std::calloc(static_cast<size_t>(count) + 64 / sizeof(T) + 1, sizeof(T));
  if (data == nullptr) throw std::bad_alloc();
  return Zeroed<T>(static_cast<T*>(data));
}

template <bool kChecked>
BasicPagePool<kChecked>::BasicPagePool(int64_t pages)
    : pages_(pages), word_count_((pages + 63) / 64), id_(pools_made.fetch_add(1) + 1) {
  if (pages < 1 || pages > kMostPages) {
    throw std::invalid_argument("a pool of " + std::to_string(pages) + " pages; accepted: 1 to " +
                                std::to_string(kMostPages));
  }
  const int64_t summary = (word_count_ + 63) / 64;
  words_ = zeroed<Word>(word_count_);
  full_ = zeroed<std::atomic<uint64_t>>(summary);
  extra_ = zeroed<std::atomic<uint32_t>>(pages);
  if (kChecked) generations_ = zeroed<std::atomic<uint32_t>>(pages);
  // Bits beyond the end are in use for ever.
  if (pages % 64) words_[word_count_ - 1].used.store(kFull << (pages % 64));
  if (word_count_ % 64) full_[summary - 1].store(kFull << (word_count_ % 64));
}

// visit(word) on every word not marked full, once round from `from`, then on every word whatever its mark;
// ends when visit says true.
template <bool kChecked>
template <class Visit>
void BasicPagePool<kChecked>::each_open_word(uint32_t from, Visit&& visit) {
  const int64_t count = (word_count_ + 63) / 64, first = from >> 6;
  const uint64_t before = (uint64_t{1} << (from & 63)) - 1;
  for (int64_t step = 0; step <= count; ++step) {
    const int64_t s = first + step < count ? first + step : first + step - count;
    uint64_t open = ~full_[s].load(std::memory_order_relaxed);
    if (step == 0) open &= ~before;
    if (step == count) open &= before;
    for (; open != 0; open &= open - 1) {
      if (visit(static_cast<uint32_t>(s * 64 + std::countr_zero(open)))) return;
    }
  }
  for (int64_t at = 0; at < word_count_; ++at) {
    if (visit(static_cast<uint32_t>(at))) return;
  }
}

// The calling thread's hint, made this pool's.
template <bool kChecked>
Hint& BasicPagePool<kChecked>::own_hint() const {
  Hint& hint = thread_hints[id_ % kHints];
  if (hint.pool != id_) hint = {id_, first_word(stripe(), word_count_), 0};
  return hint;
}

// Takes a free page of word `at`, which becomes the hint; kNone when the word is full.
template <bool kChecked>
Handle BasicPagePool<kChecked>::claim(uint32_t at, Hint& hint) {
  std::atomic<uint64_t>& used = words_[at].used;
  uint64_t window = kFull;
  for (;;) {
    const uint64_t open = ~used.load(std::memory_order_relaxed);
    if (open == 0) return kNone;
    const uint64_t near = open & window ? open & window : open;
    const int bit = std::countr_zero(near);
    if (set_bit(used, bit)) {
      hint = {id_, at, near & (near - 1)};
      return handle_of(int64_t{at} * 64 + bit);
    }
    // Another thread takes from this word as well: each keeps to a part of it.
    window = ((uint64_t{1} << kWindow) - 1) << (stripe() * kWindow % 64);
  }
}

template <bool kChecked>
Handle BasicPagePool<kChecked>::search(Hint& hint) {
  Handle found = kNone;
  each_open_word(own_hint().word, [&](uint32_t at) {
    found = claim(at, hint);
    if (found == kNone && !marked_full(at)) close(at);
    return found != kNone;
  });
  return found;
}

// Handles to the pages of `bits`; how many. Neighbours, the usual case, need no search for the next bit.
template <bool kChecked>
int64_t BasicPagePool<kChecked>::hand_out(uint32_t at, uint64_t bits, std::span<Handle> out) const {
  const int64_t count = std::popcount(bits);
  const int64_t base = int64_t{at} * 64;
  if (bits == 0) return 0;
  const int64_t first = std::countr_zero(bits);
  if (!kChecked && neighbours(first, count) == bits) {
    for (int64_t i = 0; i < count; ++i) out[i] = static_cast<Handle>(base + first + i);
    return count;
  }
  for (int64_t i = 0; i < count; ++i, bits &= bits - 1) out[i] = handle_of(base + std::countr_zero(bits));
  return count;
}

// Takes up to out.size() pages of a word in one step; how many.
template <bool kChecked>
int64_t BasicPagePool<kChecked>::take(uint32_t at, std::span<Handle> out) {
  std::atomic<uint64_t>& used = words_[at].used;
  int64_t got = 0;
  uint64_t seen = used.load(std::memory_order_relaxed);
  while (seen != kFull && got < std::ssize(out)) {
    const uint64_t wanted = lowest(~seen, std::ssize(out) - got);
    const uint64_t old = used.fetch_or(wanted, std::memory_order_seq_cst);
    got += hand_out(at, wanted & ~old, out.subspan(got));
    seen = old | wanted;
  }
  if (seen == kFull && !marked_full(at)) close(at);
  return got;
}

template <bool kChecked>
int64_t BasicPagePool<kChecked>::alloc_some(std::span<Handle> out) {
  if (out.empty()) return 0;
  Hint& hint = own_hint();
  int64_t got = 0;
  each_open_word(hint.word, [&](uint32_t at) {
    const int64_t more = take(at, out.subspan(got));
    got += more;
    if (more > 0) hint = {id_, at, 0};
    return got == std::ssize(out);
  });
  return got;
}

template <bool kChecked>
bool BasicPagePool<kChecked>::alloc_all(std::span<Handle> out) {
  const int64_t got = alloc_some(out);
  if (got == std::ssize(out)) return true;
  release_all(out.first(got));
  return false;
}

template <bool kChecked>
Release BasicPagePool<kChecked>::share(Handle handle) {
  if (!belongs(handle)) return Release::foreign;
  const int64_t page = page_of(handle);
  if (!current(handle) || !in_use(page)) return Release::twice;
  const uint64_t mask = uint64_t{1} << (page & 63);
  extra_[page].fetch_add(1, std::memory_order_relaxed);
  // The bit is set before the new reference can reach another thread.
  Word& word = words_[page >> 6];
  if (!(word.shared.load(std::memory_order_relaxed) & mask)) {
    word.shared.fetch_or(mask, std::memory_order_release);
  }
  return Release::freed;
}

template <bool kChecked>
Release BasicPagePool<kChecked>::release_shared(Handle handle) {
  const int64_t page = page_of(handle);
  if (!current(handle)) return Release::twice;
  uint32_t others = extra_[page].load(std::memory_order_acquire);
  while (others != 0) {
    if (extra_[page].compare_exchange_weak(others, others - 1, std::memory_order_acq_rel)) {
      return Release::kept;
    }
  }
  if (!retire(handle)) return Release::twice;
  // Nobody else holds the page, so nobody can share it now.
  Word& word = words_[page >> 6];
  word.shared.fetch_and(~(uint64_t{1} << (page & 63)), std::memory_order_relaxed);
  if (!clear_bit(word.used, page & 63)) return Release::twice;
  reopen(page >> 6);
  return Release::freed;
}

template <bool kChecked>
void BasicPagePool<kChecked>::release_word(int64_t at, uint64_t mask, int64_t place,
                                           std::span<const Handle> run, BatchRelease* result) {
  const auto tell = [&](Release what, int64_t i) {
    if (what == Release::freed) ++result->freed;
    if (what == Release::kept) ++result->kept;
    if (what != Release::twice && what != Release::foreign) return;
    if (result->wrong++ == 0) {
      result->first_wrong = place + i;
      result->why = what;
    }
  };
  Word& word = words_[at];
  const bool one_by_one =
      kChecked || run.size() == 1 || (word.shared.load(std::memory_order_acquire) & mask) != 0;
  if (one_by_one) {
    for (size_t i = 0; i < run.size(); ++i) tell(release(run[i]), static_cast<int64_t>(i));
    return;
  }
  const uint64_t old = word.used.fetch_and(~mask, std::memory_order_seq_cst);
  reopen(at);
  if ((old & mask) == mask) {
    result->freed += std::ssize(run);
    return;
  }
  for (size_t i = 0; i < run.size(); ++i) {
    const bool was = old >> (page_of(run[i]) & 63) & 1;
    tell(was ? Release::freed : Release::twice, static_cast<int64_t>(i));
  }
}

template <bool kChecked>
BatchRelease BasicPagePool<kChecked>::release_all(std::span<const Handle> handles) {
  BatchRelease result;
  const int64_t count = std::ssize(handles);
  for (int64_t i = 0; i < count;) {
    if (!belongs(handles[i])) {
      if (result.wrong++ == 0) {
        result.first_wrong = i;
        result.why = Release::foreign;
      }
      ++i;
      continue;
    }
    // The run of neighbours in one word; a page that comes twice starts a new run, which meets it freed.
    const int64_t start = i, at = page_of(handles[i]) >> 6;
    const Handle same = handles[i] >> 6;
    uint64_t mask = 0;
    if (const int64_t run = kChecked ? 0 : ascending(handles.subspan(i));
        run > 1 && belongs(handles[i + run - 1])) {
      mask = neighbours(static_cast<int64_t>(handles[i] & 63), run);
      i += run;
    }
    for (; i < count && (kChecked ? page_of(handles[i]) >> 6 == at : handles[i] >> 6 == same); ++i) {
      const uint64_t bit = uint64_t{1} << (handles[i] & 63);
      if ((mask & bit) || !belongs(handles[i])) break;
      mask |= bit;
    }
    release_word(at, mask, start, handles.subspan(start, i - start), &result);
  }
  return result;
}

template <bool kChecked>
int64_t BasicPagePool<kChecked>::references(Handle handle) const {
  if (!belongs(handle) || !current(handle)) return -1;
  const int64_t page = page_of(handle);
  if (!in_use(page)) return 0;
  return int64_t{1} + extra_[page].load(std::memory_order_relaxed);
}

template <bool kChecked>
int64_t BasicPagePool<kChecked>::free_pages() const {
  int64_t used = 0;
  for (int64_t at = 0; at < word_count_; ++at) {
    used += std::popcount(words_[at].used.load(std::memory_order_relaxed));
  }
  return word_count_ * 64 - used;
}

template <bool kChecked>
int64_t BasicPagePool<kChecked>::bookkeeping_bytes() const {
  const int64_t bits = word_count_ * static_cast<int64_t>(sizeof(Word)) + (word_count_ + 63) / 64 * 8;
  return bits + pages_ * (kChecked ? 8 : 4);
}

template class BasicPagePool<false>;
template class BasicPagePool<true>;

}  // namespace tw::pages
