// bf16 on tile registers, where one block's products run beside another's softmax.
//
// Tile products take no slot that vectors need, but only what stands near in the program runs at once. So
// while the weights of block n are computed, 32 keys at a time, the scores of block n + 1 and the values of
// block n - 1 are multiplied in between. Where blocks are the same rows over other keys and the reference
// moves, the values before it are added first.
#pragma once

#include "attention/host_tiles.hpp"

namespace tw::attention::TW_ISA {
namespace {

constexpr int64_t kStepKeys = kChunk<kBF16>;
constexpr int64_t kMostRows = 256;
static_assert(kLanes == kPanelRows);

class Pipeline {
 public:
  void run(const Block* blocks, int64_t count) {
    enter(blocks[0]);
    for (int64_t n = 0; n < count; ++n) {
      step(n > 0 && pending_ ? &blocks[n - 1] : nullptr, blocks[n], n + 1 < count ? &blocks[n + 1] : nullptr);
    }
    if (pending_) finish(blocks[count - 1]);
  }

 private:
  static int64_t steps_of(const Block& b) { return (b.last - b.first) / kStepKeys; }
  static int64_t pairs_of(const Block& b) { return (b.panels + 1) / 2; }
  // Products of 2 x 2 tiles that its values take.
  static int64_t groups_of(const Block& b) { return (b.dv / kTileRows + 1) / 2 * pairs_of(b); }

  TW_INLINE float* scores_at(const Block& b, int64_t panel, int64_t step) {
    return b.s + (panel * (b.last - b.first) + step * kStepKeys) * kPanelRows;
  }
  TW_INLINE Keys keys_at(const Block& b, int64_t step) {
    return {b.first + step * kStepKeys, b.first + (step + 1) * kStepKeys};
  }

  void enter(const Block& b) {
    for (int64_t step = 0; step < steps_of(b); ++step) score(b, step);
    begin_bend(b);
    for (int64_t step = 0; step < steps_of(b); ++step) bend_step(b, step);
    settle(b);
  }

  void step(const Block* before, const Block& b, const Block* after) {
    const int64_t own = steps_of(b), next = after != nullptr ? steps_of(*after) : 0;
    const int64_t steps = own > next ? own : next, groups = before != nullptr ? groups_of(*before) : 0;
    __builtin_memcpy(shift_, settled_, sizeof shift_);
    if (after != nullptr) begin_bend(*after);
    for (int64_t i = 0; i < steps; ++i) {
      if (i < next) score(*after, i);
      if (i > 0 && i <= next) bend_step(*after, i - 1);
      if (before != nullptr) add_values(*before, i * groups / steps, (i + 1) * groups / steps);
      fetch_part(b.fetch, i, steps);
      if (i < own) weigh_step(b, i);
    }
    if (before != nullptr) add_specials(*before);
    pending_ = true;
    if (after == nullptr) return;
    if (next == steps) bend_step(*after, next - 1);
    if (after->o == b.o && moves(*after)) finish(b);
    settle(*after);
  }

  // Adds the values of a block whose weights are there.
  void finish(const Block& b) {
    add_values(b, 0, groups_of(b));
    add_specials(b);
    pending_ = false;
  }

  // Whether a row's reference will move.
  inline TW_BODY bool moves(const Block& b) {
    bool found = false;
    for (int64_t row = 0; row < b.panels * kPanelRows; row += kLanes) {
      found |= any(beats(load(most_ + row), load(b.m + row)));
    }
    return found;
  }

  // Scores of 32 keys, for all panels.
  inline TW_BODY void score(const Block& b, int64_t step) {
    const int64_t chunks = b.groups / kTileRows;
    TileProduct p;
    p.a = b.k + (b.first + step * kStepKeys) * chunks * kTileBytes;
    p.a_apart = chunks * kTileSize;
    p.a_step = kTileSize;
    p.b = b.q;
    p.b_apart = chunks * kTileSize;
    p.steps = chunks;
    p.c = reinterpret_cast<char*>(scores_at(b, 0, step));
    p.c_apart = (b.last - b.first) * kPanelBytes;
    tile_products<DotBF16, false>(p, kStepKeys / kTileRows, b.panels);
  }

  inline TW_BODY void begin_bend(const Block& b) {
    for (int64_t row = 0; row < b.panels * kPanelRows; row += kLanes) store(most_ + row, bcast(-kInf));
  }

  inline TW_BODY void bend_step(const Block& b, int64_t step) {
    for (int64_t panel = 0; panel < b.panels; ++panel) {
      float* most = most_ + panel * kPanelRows;
      store(most, larger(load(most), bend(b, keys_at(b, step), panel, 0, scores_at(b, panel, step))));
    }
  }

  inline TW_BODY void settle(const Block& b) {
    for (int64_t panel = 0; panel < b.panels; ++panel) {
      const int64_t row = panel * kPanelRows;
      store(settled_ + row, move_reference(b, panel, 0, load(most_ + row)));
    }
  }

  inline TW_BODY void weigh_step(const Block& b, int64_t step) {
    for (int64_t panel = 0; panel < b.panels; ++panel) {
      const int64_t row = panel * kPanelRows;
      char* p = b.p + (panel * (b.last - b.first) + step * kStepKeys) / 2 * kPanelBytes;
      weigh<kBF16>(b, keys_at(b, step), row, load(shift_ + row), scores_at(b, panel, step), p);
    }
  }

  // Groups [first, last) of its values.
  inline TW_BODY void add_values(const Block& b, int64_t first, int64_t last) {
    const int64_t chunks = steps_of(b), pairs = pairs_of(b);
    for (int64_t group = first; group < last; ++group) {
      const int64_t dv = group / pairs * 2, panel = group % pairs * 2;
      TileProduct p;
      p.a = b.v + b.first / kStepKeys * b.dv * kTileBytes + dv * kTileSize;
      p.a_apart = kTileSize;
      p.a_step = b.dv * kTileBytes;
      p.b = b.p + panel * chunks * kTileSize;
      p.b_apart = chunks * kTileSize;
      p.steps = chunks;
      p.c = reinterpret_cast<char*>(b.o) + (panel * b.dv + dv * kTileRows) * kPanelBytes;
      p.c_apart = b.dv * kPanelBytes;
      const int64_t tiles = b.dv / kTileRows - dv, panels = b.panels - panel;
      tile_products<DotBF16, true>(p, tiles < 2 ? tiles : 2, panels < 2 ? panels : 2);
    }
  }

  inline TW_BODY void add_specials(const Block& b) {
    if (b.specials == 0) return;
    add_special(
        b, [&](int64_t panel, int64_t key, int64_t lane) { return weight_at<kBF16>(b, panel, key, lane); });
  }

  alignas(64) float most_[kMostRows], settled_[kMostRows], shift_[kMostRows];
  bool pending_ = false;  // the weights of the last block are there, and its values not yet added
};

void blocks_tiles(const Block* blocks, int64_t count) {
  Pipeline pipeline;
  if (count > 0) pipeline.run(blocks, count);
}

}  // namespace
}  // namespace tw::attention::TW_ISA
