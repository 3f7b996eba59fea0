// A lock-free pool of page numbers: one bit a page, taken by fetch_or and given back by fetch_and.
//
// Words of 64 pages; a summary bit for each word says that it is full, so that a search passes 4096 pages a
// load. Each thread has a hint: the word it takes from and the bits it saw free there. It begins at a stripe
// of its own and moves on when a word is full, so threads with room do not meet. Hints and summary are only
// advice and may lag behind: alloc() says no after it looked at every word and found none free.
//
// A page may be shared: `share` adds a reference, `release` drops one, the last of which frees the page. The
// count lies aside and is touched only for pages whose `shared` bit, beside the used bit, is set.
//
// Handles of a checked pool carry the pool and the page's generation, so that a handle that is kept for too
// long or belongs to another pool is refused even when its page is in use again. Handles of an unchecked pool
// are page numbers; a page that is not in use, or beyond the end, is refused there as well.
#pragma once

#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>

namespace tw::pages {

using Handle = uint64_t;  // low 32 bits: the page; checked pools: 20 bits of generation, 12 of the pool

constexpr Handle kNone = ~Handle{0};
constexpr int64_t kMostPages = int64_t{1} << 31;

constexpr int64_t page_of(Handle handle) { return static_cast<int64_t>(handle & 0xffffffffu); }

enum class Release : int {
  freed = 0,    // it was the last reference: the page is free
  kept = 1,     // others still hold the page
  twice = 2,    // the page is not in use, or not by this handle any more
  foreign = 3,  // the handle is not of this pool
};

// What a batch came to: every right handle is released, the first wrong one is told.
struct BatchRelease {
  int64_t freed = 0, kept = 0, wrong = 0;
  int64_t first_wrong = -1;  // its place in the batch
  Release why = Release::freed;
};

// Where a thread goes on in a pool, and the bits of that word it believes free.
struct Hint {
  uint32_t pool, word;
  uint64_t open;
};

// A thread's hints by pool number modulo their count; pools that meet in one start over each time they
// alternate. In the block of thread-local memory that every thread has from its start: no call is needed to
// find it.
constexpr uint32_t kHints = 4;
extern thread_local constinit Hint thread_hints[kHints] __attribute__((tls_model("initial-exec")));

template <bool kChecked>
class BasicPagePool {
 public:
  // Throws std::invalid_argument unless 1 <= pages <= kMostPages, std::bad_alloc without the memory.
  explicit BasicPagePool(int64_t pages);
  BasicPagePool(const BasicPagePool&) = delete;
  BasicPagePool& operator=(const BasicPagePool&) = delete;

  // A page with one reference; kNone when a scan of every word found no free one.
  Handle alloc() {
    Hint& hint = thread_hints[id_ % kHints];
    if (hint.open != 0 && hint.pool == id_) [[likely]] {
      const int bit = std::countr_zero(hint.open);
      hint.open &= hint.open - 1;
      if (set_bit(words_[hint.word].used, bit)) return handle_of(int64_t{hint.word} * 64 + bit);
    }
    return search(hint);
  }

  // As many pages as there are, at most out.size(); the number of them, which stand first in `out`.
  int64_t alloc_some(std::span<Handle> out);

  // All of `out`, or none of it and false. Pages it gives back may be missed by others meanwhile.
  bool alloc_all(std::span<Handle> out);

  // One more reference to a page that the caller holds; `freed` when done, else `twice` or `foreign`. At most
  // 2^32 references.
  Release share(Handle handle);

  // Drops one reference.
  Release release(Handle handle) {
    const int64_t page = page_of(handle);
    if (!belongs(handle)) return Release::foreign;
    Word& word = words_[page >> 6];
    const uint64_t mask = uint64_t{1} << (page & 63);
    if (word.shared.load(std::memory_order_acquire) & mask) [[unlikely]] {
      return release_shared(handle);
    }
    if (!retire(handle) || !clear_bit(word.used, page & 63)) return Release::twice;
    reopen(page >> 6);
    return Release::freed;
  }

  // Drops one reference of each handle, a word at a time where neighbours stand together.
  BatchRelease release_all(std::span<const Handle> handles);

  // References to a page; 0 when it is free, -1 for a handle of another pool or time.
  int64_t references(Handle handle) const;

  int64_t pages() const { return pages_; }

  // Pages not in use; exact while nobody changes them.
  int64_t free_pages() const;

  // Bytes of bits, counts and generations.
  int64_t bookkeeping_bytes() const;

 private:
  struct Word {
    std::atomic<uint64_t> used;
    std::atomic<uint64_t> shared;
  };
  struct FreeZeroed {
    void operator()(void* data) const;
  };
  template <class T>
  using Zeroed = std::unique_ptr<T[], FreeZeroed>;
  // Pages of the operating system are zero until first used: counts of pages never shared take no memory.
  template <class T>
  static Zeroed<T> zeroed(int64_t count);

  static constexpr uint64_t kFull = ~uint64_t{0};
  static constexpr int kGenerationBits = 20;
  static constexpr uint32_t kGenerations = 1u << kGenerationBits, kPools = 1u << (32 - kGenerationBits);

  // Whether this call changed the bit. Compilers make one `lock bts` or `lock btr` of exactly this form.
  static bool set_bit(std::atomic<uint64_t>& word, int64_t bit) {
    const uint64_t mask = uint64_t{1} << bit;
    return !(word.fetch_or(mask, std::memory_order_seq_cst) & mask);
  }
  static bool clear_bit(std::atomic<uint64_t>& word, int64_t bit) {
    const uint64_t mask = uint64_t{1} << bit;
    return (word.fetch_and(~mask, std::memory_order_seq_cst) & mask) != 0;
  }

  uint64_t pool_tag() const { return id_ % kPools; }

  Handle handle_of(int64_t page) const {
    if constexpr (kChecked) {
      const uint64_t generation = generations_[page].load(std::memory_order_relaxed) % kGenerations;
      return static_cast<uint64_t>(page) | generation << 32 | pool_tag() << (32 + kGenerationBits);
    }
    return static_cast<Handle>(page);
  }

  bool belongs(Handle handle) const {
    if constexpr (kChecked) {
      if (handle >> (32 + kGenerationBits) != pool_tag()) return false;
    } else if (handle >> 32 != 0) {
      return false;
    }
    return page_of(handle) < pages_;
  }

  bool current(Handle handle) const {
    if constexpr (kChecked) {
      return generations_[page_of(handle)].load(std::memory_order_relaxed) % kGenerations ==
             (handle >> 32) % kGenerations;
    }
    return true;
  }

  // Ends the generation of a handle about to be freed; false when it has ended before. Of several threads
  // that free one handle, one gets true.
  bool retire(Handle handle) {
    if constexpr (kChecked) {
      std::atomic<uint32_t>& generation = generations_[page_of(handle)];
      uint32_t seen = generation.load(std::memory_order_relaxed);
      if (seen % kGenerations != (handle >> 32) % kGenerations || !in_use(page_of(handle))) return false;
      return generation.compare_exchange_strong(seen, seen + 1, std::memory_order_relaxed);
    }
    return true;
  }

  bool in_use(int64_t page) const {
    return words_[page >> 6].used.load(std::memory_order_relaxed) >> (page & 63) & 1;
  }

  // A word was seen full. If a page of it is freed meanwhile, one of the two sees the other's store, since
  // both store, then load, in one total order: the mark does not stay on a word that is not full.
  void close(uint32_t at) {
    const uint64_t mask = uint64_t{1} << (at & 63);
    full_[at >> 6].fetch_or(mask, std::memory_order_seq_cst);
    if (words_[at].used.load(std::memory_order_seq_cst) != kFull) {
      full_[at >> 6].fetch_and(~mask, std::memory_order_seq_cst);
    }
  }

  bool marked_full(int64_t at) const {
    return full_[at >> 6].load(std::memory_order_seq_cst) >> (at & 63) & 1;
  }

  // A page of the word was freed.
  void reopen(int64_t at) {
    if (marked_full(at)) full_[at >> 6].fetch_and(~(uint64_t{1} << (at & 63)), std::memory_order_seq_cst);
  }

  Handle search(Hint& hint);
  Hint& own_hint() const;
  Handle claim(uint32_t at, Hint& hint);
  int64_t hand_out(uint32_t at, uint64_t bits, std::span<Handle> out) const;
  int64_t take(uint32_t at, std::span<Handle> out);
  template <class Visit>
  void each_open_word(uint32_t from, Visit&& visit);
  Release release_shared(Handle handle);
  void release_word(int64_t at, uint64_t mask, int64_t place, std::span<const Handle> run,
                    BatchRelease* result);

  int64_t pages_;
  int64_t word_count_;
  uint32_t id_;  // no two pools of a process have the same
  Zeroed<Word> words_;
  Zeroed<std::atomic<uint64_t>> full_;         // a bit a word
  Zeroed<std::atomic<uint32_t>> extra_;        // references beyond the first, by page
  Zeroed<std::atomic<uint32_t>> generations_;  // times freed, by page; checked pools only
};

extern template class BasicPagePool<false>;
extern template class BasicPagePool<true>;

// Debug builds check handles; both pools can be had by name in any build.
#ifdef NDEBUG
using PagePool = BasicPagePool<false>;
#else
using PagePool = BasicPagePool<true>;
#endif

}  // namespace tw::pages
