// Slots of a paged cache and how they fall into runs: tokens in a row that lie in a row in one page. A slot
// is page * 16 + place in the page; -1 skips its token.
#pragma once

#include "kernel_operator.h"

namespace tw_kv {

constexpr int32_t kPage = 16;   // tokens of a page
constexpr int32_t kBlock = 32;  // bytes of a block of UB, and of a row of a fractal
constexpr int32_t kFractal = kPage * kBlock;

// For a >= 0; sizes reach INT32_MAX, so nothing is added before the division.
__aicore__ inline int32_t CeilDiv(int32_t a, int32_t b) { return a > 0 ? (a - 1) / b + 1 : 0; }
__aicore__ inline int32_t RoundUp(int32_t a, int32_t b) { return CeilDiv(a, b) * b; }
__aicore__ inline int32_t Min(int32_t a, int32_t b) { return a < b ? a : b; }
__aicore__ inline int32_t Max(int32_t a, int32_t b) { return a > b ? a : b; }

// A struct of int32 fields, read word by word.
template <typename T>
__aicore__ inline void ReadTiling(GM_ADDR tiling, T& out) {
  AscendC::GlobalTensor<int32_t> words;
  words.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(tiling));
  int32_t* fields = reinterpret_cast<int32_t*>(&out);
  for (uint32_t i = 0; i < sizeof(T) / sizeof(int32_t); ++i) fields[i] = words.GetValue(i);
}

// `total` items over `parts` cores as evenly as can be; the first ones take what is left.
struct Share {
  int32_t begin, end;
};
__aicore__ inline Share ShareOf(int32_t total, int32_t parts, int32_t part) {
  const int32_t each = total / parts, more = total % parts;
  const int32_t begin = part * each + Min(part, more);
  return {begin, begin + each + (part < more ? 1 : 0)};
}

struct Run {
  int32_t token, slot, count;  // slot -1: skipped tokens
};

// The runs of one core's share of the tokens. Shares begin where a run does, so that no page is cut in two.
class Runs {
 public:
  __aicore__ inline void Init(GM_ADDR slots, int32_t tokens, int32_t parts, int32_t part) {
    slots_.SetGlobalBuffer(reinterpret_cast<__gm__ int32_t*>(slots));
    tokens_ = tokens;
    const Share share = ShareOf(tokens, parts, part);
    next_ = Snap(share.begin);
    end_ = Snap(share.end);
    slot_ = next_ < end_ ? slots_.GetValue(next_) : -1;
  }
  __aicore__ inline bool Next(Run& run) {
    if (next_ >= end_) return false;
    run = {next_, slot_ < 0 ? -1 : slot_, 0};
    const int32_t limit = run.slot < 0 ? kPage : kPage - run.slot % kPage;
    do {
      ++run.count;
      if (++next_ < end_) slot_ = slots_.GetValue(next_);
    } while (next_ < end_ && run.count < limit && (run.slot < 0 ? slot_ < 0 : slot_ == run.slot + run.count));
    return true;
  }

 private:
  // The first token from `token` on that does not go on within the page of the one before it.
  __aicore__ inline int32_t Snap(int32_t token) const {
    while (token > 0 && token < tokens_) {
      const int32_t slot = slots_.GetValue(token);
      if (slot <= 0 || slot % kPage == 0 || slots_.GetValue(token - 1) != slot - 1) break;
      ++token;
    }
    return token;
  }

  AscendC::GlobalTensor<int32_t> slots_;
  int32_t tokens_ = 0, next_ = 0, end_ = 0, slot_ = -1;
};

}  // namespace tw_kv
