#include "gm_races.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "machine.h"

namespace tilewright::twin {

namespace {

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
        it = pieces_.emplace_hint(it, begin, Piece{stop, -1, {}, {}});
      }
      Apply(which, begin, it->second);
      begin = it->second.end;
      ++it;
    }
  }

 private:
  void SplitAt(uint64_t at) {
    auto it = pieces_.upper_bound(at);
    if (it == pieces_.begin()) return;
    --it;
    if (it->first == at || it->second.end <= at) return;
    Piece tail = it->second;
    it->second.end = at;
    pieces_.emplace(at, std::move(tail));
  }

  void Check(int32_t earlier, int32_t later, Hazard hazard, uint64_t begin, uint64_t end) {
    if (earlier < 0) return;
    const GmAccess &a = accesses_[static_cast<size_t>(earlier)], &b = accesses_[static_cast<size_t>(later)];
    if (Knows(b, a)) return;
    if (a.core == b.core && HardwareOrders(hazard, Mem::GM, a.pipe, a.site, b.pipe, b.site)) return;
    for (GmRace& r : races_)
      if (r.before.site.at.line == a.site.at.line && r.after.site.at.line == b.site.at.line &&
          r.hazard == hazard && (r.before.core == r.after.core) == (a.core == b.core))
        return;
    races_.push_back({a, b, hazard, begin, end});
  }

  void Apply(int32_t which, uint64_t begin, Piece& piece) {
    const GmAccess& access = accesses_[static_cast<size_t>(which)];
    if (!access.operand.write) {
      Check(piece.write, which, Hazard::Raw, begin, piece.end);
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
    Check(piece.write, which, Hazard::Waw, begin, piece.end);
    for (const int32_t read : piece.reads) Check(read, which, Hazard::War, begin, piece.end);
    piece.reads.clear();
    if (access.atomic != Atomic::None) {
      piece.updates.push_back(which);
      return;
    }
    for (const int32_t update : piece.updates) Check(update, which, Hazard::Waw, begin, piece.end);
    piece.updates.clear();
    piece.write = which;
  }

  const std::vector<GmAccess>& accesses_;
  std::vector<GmRace>& races_;
  std::map<uint64_t, Piece> pieces_;
};

}  // namespace

std::vector<GmRace> FindGmRaces(std::vector<GmAccess> accesses, const std::vector<GmBuffer>& buffers) {
  std::vector<GmRace> races;
  std::sort(accesses.begin(), accesses.end(),
            [](const GmAccess& a, const GmAccess& b) { return a.order < b.order; });
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
    for (size_t i = 0; i < accesses.size(); ++i) {
      if (!inside(accesses[i])) continue;
      ForEachRange(none, accesses[i].operand, [&](uint64_t begin, uint64_t bytes) {
        history.Touch(static_cast<int32_t>(i), begin, begin + bytes);
      });
    }
  }
  return races;
}

}  // namespace tilewright::twin
