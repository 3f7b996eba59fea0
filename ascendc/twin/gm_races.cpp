#include "gm_races.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>
#include <queue>

#include "machine.h"

namespace tilewright::twin {

namespace {

constexpr uint64_t kCacheLine = 64;

bool CleansCache(const GmAccess& a) { return a.site.slot == static_cast<int>(Op::DataCache); }

bool Knows(const GmAccess& later, const GmAccess& earlier) {
  if (later.core == earlier.core) return later.clock.Knows(earlier.pipe, earlier.index);
  if (later.clock.remote == nullptr) return false;
  const size_t at = static_cast<size_t>(earlier.core) * kPipes + static_cast<size_t>(earlier.pipe);
  return earlier.index < (*later.clock.remote)[at];
}

// What happened to the bytes from the key of the map up to `end`.
struct Piece {
  uint64_t end = 0;
  int32_t write = -1;
  int32_t cleaned = -1;          // when the data cache that took the write gave it to memory
  std::vector<int32_t> updates;  // atomic ones since, which order among themselves does not matter to
  std::vector<int32_t> reads;    // since; the latest of each core and pipe
};

class History {
 public:
  History(const std::vector<GmAccess>& accesses, std::vector<GmRace>& races)
      : accesses_(accesses), races_(races) {}

  void Touch(int32_t which, uint64_t begin, uint64_t end) {
    SplitAt(begin);
    SplitAt(end);
    auto it = pieces_.lower_bound(begin);
    while (begin < end) {
      if (it == pieces_.end() || it->first > begin) {
        const uint64_t stop = it == pieces_.end() ? end : std::min(end, it->first);
        it = pieces_.emplace_hint(it, begin, Piece{stop, -1, -1, {}, {}});
      }
      Apply(which, begin, it->second);
      begin = it->second.end;
      ++it;
    }
  }

  // What this core's scalar unit has written there is in memory from now on.
  void Clean(int32_t which, uint64_t begin, uint64_t end) {
    SplitAt(begin);
    SplitAt(end);
    const int core = accesses_[static_cast<size_t>(which)].core;
    for (auto it = pieces_.lower_bound(begin); it != pieces_.end() && it->first < end; ++it) {
      Piece& piece = it->second;
      if (piece.write >= 0 && piece.cleaned < 0 && Cached(piece.write).core == core) piece.cleaned = which;
    }
  }

 private:
  const GmAccess& Cached(int32_t which) const { return accesses_[static_cast<size_t>(which)]; }

  void SplitAt(uint64_t at) {
    auto it = pieces_.upper_bound(at);
    if (it == pieces_.begin()) return;
    --it;
    if (it->first == at || it->second.end <= at) return;
    Piece tail = it->second;
    it->second.end = at;
    pieces_.emplace(at, std::move(tail));
  }

  // True where the earlier access is over when the later one begins.
  bool Check(int32_t earlier, int32_t later, Hazard hazard, uint64_t begin, uint64_t end) {
    if (earlier < 0) return true;
    const GmAccess &a = accesses_[static_cast<size_t>(earlier)], &b = accesses_[static_cast<size_t>(later)];
    if (Knows(b, a)) return true;
    if (a.core == b.core && HardwareOrders(hazard, Mem::GM, a.pipe, a.site, b.pipe, b.site)) return true;
    Found({a, b, hazard, begin, end});
    return false;
  }

  void Found(const GmRace& race) {
    const auto across = [](const GmRace& r) { return r.before.core != r.after.core; };
    for (GmRace& r : races_) {
      if (r.before.site.at.line != race.before.site.at.line ||
          r.after.site.at.line != race.after.site.at.line || r.hazard != race.hazard ||
          r.stale != race.stale || across(r) != across(race))
        continue;
      // Scalars are written one by one, and read in one go.
      if (r.stale && r.end == race.begin && r.after.seq == race.after.seq && r.after.core == race.after.core)
        r.end = race.end;
      return;
    }
    races_.push_back(race);
  }

  // A scalar unit's writes stay in its core's data cache, past which everybody else reads.
  void CheckCache(int32_t which, const Piece& piece, uint64_t begin) {
    if (piece.write < 0) return;
    const GmAccess &a = Cached(piece.write), &b = Cached(which);
    if (!a.cached || (b.pipe == Pipe::S && b.core == a.core)) return;
    if (piece.cleaned >= 0) {
      const GmAccess& cleaned = Cached(piece.cleaned);
      if (Knows(b, cleaned) || (b.core == cleaned.core && cleaned.seq < b.seq)) return;
    }
    Found({a, b, Hazard::Raw, begin, piece.end, true});
  }

  void Apply(int32_t which, uint64_t begin, Piece& piece) {
    const GmAccess& access = accesses_[static_cast<size_t>(which)];
    if (!access.operand.write) {
      if (Check(piece.write, which, Hazard::Raw, begin, piece.end)) CheckCache(which, piece, begin);
      for (const int32_t update : piece.updates) Check(update, which, Hazard::Raw, begin, piece.end);
      for (int32_t& read : piece.reads) {
        const GmAccess& r = accesses_[static_cast<size_t>(read)];
        if (r.core != access.core || r.pipe != access.pipe) continue;
        read = which;
        return;
      }
      piece.reads.push_back(which);
      return;
    }
    if (Check(piece.write, which, Hazard::Waw, begin, piece.end) && access.atomic != Atomic::None)
      CheckCache(which, piece, begin);
    for (const int32_t read : piece.reads) Check(read, which, Hazard::War, begin, piece.end);
    piece.reads.clear();
    if (access.atomic != Atomic::None) {
      piece.updates.push_back(which);
      return;
    }
    for (const int32_t update : piece.updates) Check(update, which, Hazard::Waw, begin, piece.end);
    piece.updates.clear();
    piece.write = which;
    piece.cleaned = -1;
  }

  const std::vector<GmAccess>& accesses_;
  std::vector<GmRace>& races_;
  std::map<uint64_t, Piece> pieces_;
};

// One order that agrees with all that is known to come before what, whatever the threads and the schedule of
// this run made of it: as if the cores went on side by side, an instruction each at a time.
class SideBySide {
 public:
  explicit SideBySide(const std::vector<GmAccess>& accesses) : accesses_(accesses), sorted_(accesses.size()) {
    std::iota(sorted_.begin(), sorted_.end(), 0);
    std::stable_sort(sorted_.begin(), sorted_.end(), [&](int32_t a, int32_t b) { return Key(a) < Key(b); });
    for (uint32_t i = 0; i < sorted_.size(); ++i) {
      const size_t stream = StreamOf(At(i));
      if (stream >= streams_.size()) streams_.resize(stream + 1);
      if (streams_[stream].next == streams_[stream].end) streams_[stream].next = i;
      streams_[stream].end = i + 1;
    }
  }

  std::vector<int32_t> Order() {
    std::vector<int32_t> order;
    order.reserve(sorted_.size());
    for (size_t s = 0; s < streams_.size(); ++s)
      if (streams_[s].next < streams_[s].end) Queue(s);
    while (!ready_.empty()) {
      const size_t s = std::get<1>(ready_.top());
      ready_.pop();
      order.push_back(sorted_[streams_[s].next++]);
      const std::vector<size_t> waiting = std::move(streams_[s].waiting);
      streams_[s].waiting.clear();
      if (streams_[s].next < streams_[s].end) Queue(s);
      for (const size_t w : waiting) Queue(w);
    }
    return order;
  }

 private:
  struct Stream {
    uint32_t next = 0, end = 0;   // of sorted_
    std::vector<size_t> waiting;  // streams whose next access comes after this one's
    const Remote* passed = nullptr;
  };

  const GmAccess& At(uint32_t i) const { return accesses_[static_cast<size_t>(sorted_[i])]; }
  static size_t StreamOf(const GmAccess& a) {
    return static_cast<size_t>(a.core) * kPipes + static_cast<size_t>(a.pipe);
  }
  std::pair<size_t, uint32_t> Key(int32_t i) const {
    const GmAccess& a = accesses_[static_cast<size_t>(i)];
    return {StreamOf(a), a.index};
  }
  // Whether a stream still has accesses before its `count`th instruction.
  bool Behind(size_t stream, uint32_t count) const {
    if (stream >= streams_.size()) return false;
    const Stream& s = streams_[stream];
    return s.next < s.end && At(s.next).index < count;
  }
  void Queue(size_t stream) {
    Stream& s = streams_[stream];
    const GmAccess& a = At(s.next);
    const auto wait = [&](size_t other) { streams_[other].waiting.push_back(stream); };
    for (size_t p = 0; p < kPipes; ++p) {
      const size_t own = static_cast<size_t>(a.core) * kPipes + p;
      if (own != stream && Behind(own, a.clock.done[p])) return wait(own);
    }
    if (a.clock.remote != nullptr && a.clock.remote != s.passed) {
      const Remote& remote = *a.clock.remote;
      const size_t half = remote.size() / 2;  // the second half has all of the first, and what was meant
      for (size_t other = 0; other < half; ++other)
        if (other / kPipes != static_cast<size_t>(a.core) && Behind(other, remote[half + other]))
          return wait(other);
      s.passed = a.clock.remote;
    }
    ready_.push({a.seq, stream});
  }

  const std::vector<GmAccess>& accesses_;
  std::vector<int32_t> sorted_;  // by stream, each in its own order
  std::vector<Stream> streams_;  // one for each core and pipe
  using Entry = std::tuple<uint64_t, size_t>;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> ready_;
};

}  // namespace

std::vector<GmRace> FindGmRaces(const std::vector<GmAccess>& accesses, const std::vector<GmBuffer>& buffers) {
  std::vector<GmRace> races;
  const std::vector<int32_t> order = SideBySide(accesses).Order();
  for (const GmBuffer& buffer : buffers) {
    const auto inside = [&](const GmAccess& a) {
      return a.operand.base >= buffer.base && a.operand.base < buffer.base + buffer.bytes;
    };
    // What nobody writes nobody can race on.
    if (std::none_of(accesses.begin(), accesses.end(),
                     [&](const GmAccess& a) { return a.operand.write && inside(a); }))
      continue;
    History history(accesses, races);
    const Record none{};
    for (const int32_t i : order) {
      const GmAccess& access = accesses[static_cast<size_t>(i)];
      if (CleansCache(access)) {
        const uint64_t from = access.operand.base - buffer.base, line = from / kCacheLine * kCacheLine;
        if (access.operand.unit == 0)
          history.Clean(i, buffer.base, buffer.base + buffer.bytes);
        else if (inside(access))
          history.Clean(i, buffer.base + from, buffer.base + line + kCacheLine);
        continue;
      }
      if (!inside(access)) continue;
      ForEachRange(none, access.operand,
                   [&](uint64_t begin, uint64_t bytes) { history.Touch(i, begin, begin + bytes); });
    }
  }
  return races;
}

}  // namespace tilewright::twin
