// The blocked schedule of the host gemm: A packed in row tiles, B in panels (by the caller or here), sums of
// one tile_m x tile_n tile kept in scratch while K goes by in blocks of tile_k.
//
// stages 1: a block of B is packed, then used. stages 2: while one block is used, the next one is packed in
// slices between its panels; where B is packed already, the next panel is prefetched instead.
#include "gemm/host_runner.hpp"

namespace tw::gemm {
namespace {

// Rows are done in bands whose packed A stays below, or below what a kernel asks for where B is packed
// already: else each band packs B anew.
constexpr int64_t kPackedABytes = 8 << 20;
constexpr int64_t kPackedBBytes = 16 << 20;  // a thread's packed columns of B stay below
constexpr int64_t kSerialPackElements = 1 << 14;

// Threads along M and along N.
struct Grid {
  int64_t m, n;
};

// The grid with the smallest largest share. Among equals, where B has to be packed the widest along N, which
// packs it once; else the one whose threads read least of A and B.
Grid choose_grid(int64_t row_blocks, int64_t panels, int64_t threads, bool prepacked, int64_t tile_m) {
  Grid best{1, 1};
  int64_t best_share = INT64_MAX, best_reads = INT64_MAX;
  for (int64_t n = threads < panels ? threads : panels; n >= 1; --n) {
    const int64_t m = threads / n < row_blocks ? threads / n : row_blocks;
    const int64_t columns = (panels + n - 1) / n, rows = (row_blocks + m - 1) / m;
    const int64_t reads = prepacked ? rows * tile_m + columns * kPanelCols : 0;
    if (columns * rows > best_share || (columns * rows == best_share && reads >= best_reads)) continue;
    best_share = columns * rows;
    best_reads = reads;
    best = {m, n};
  }
  return best;
}

}  // namespace

class Blocked {
 public:
  Blocked(const Runner& runner, const uint32_t* a, const int32_t* starts, int64_t row0,
          const Parts& row_blocks)
      : r_(runner),
        p_(runner.p_),
        t_(runner.t_),
        kind_(runner.kind_),
        a_(a),
        starts_(starts),
        row0_(row0),
        row_blocks_(row_blocks) {
    k_blocks_ = k_blocks(r_);
  }

  static Parts k_blocks(const Runner& r) {
    return cut(r.groups_, r.p_.config.tile_k / kGroup[r.kind_], r.t_.k_unit[r.kind_]);
  }

  static int64_t block_panels(const Runner& r) {
    const int64_t wanted = r.p_.config.tile_n / kPanelCols;
    if (r.p_.prepacked) return wanted;
    const int64_t fitting = kPackedBBytes / (r.groups_ * kGroupBytes[r.kind_]);
    return fitting < 1 ? 1 : fitting < wanted ? fitting : wanted;
  }

  // Bytes of packed B one thread holds: all of K when several row blocks will use it, else one block per
  // stage.
  static int64_t packed_b_bytes(const Runner& r, bool reused) {
    if (r.p_.prepacked) return 0;
    const int64_t block = k_blocks(r).room() * r.p_.config.stages;
    const int64_t groups = reused || block > r.groups_ ? r.groups_ : block;
    return groups * kGroupBytes[r.kind_] * block_panels(r);
  }

  // Row blocks [m0, m1) by panels [n0, n1), one thread's share.
  void share(Range rows, Range panels, char* acc, char* packed, char* wide) {
    wide_ = wide;
    const Parts columns = cut(panels.size(), block_panels(r_));
    for (int64_t i = 0; i < columns.count; ++i) {
      panel_ = panels.begin + columns.begin(i);
      panels_ = columns.size(i);
      packed_ = packed;
      reused_ = rows.size() > 1;
      for (int64_t block = rows.begin; block < rows.end; ++block) {
        const int64_t row = row_blocks_.begin(block), count = row_blocks_.size(block);
        columns_of_block(row, count, block == rows.begin, acc);
      }
    }
  }

 private:
  // Where K block `kb` of the packed columns is, and the distance between its panels.
  const char* block_at(int64_t kb, int64_t* panel_bytes) const {
    const int64_t bytes = kGroupBytes[kind_];
    if (p_.prepacked) {
      *panel_bytes = p_.panel_bytes;
      return p_.b.data + panel_ * p_.panel_bytes + k_blocks_.begin(kb) * bytes;
    }
    *panel_bytes = k_blocks_.size(kb) * bytes;
    if (reused_) return packed_ + k_blocks_.begin(kb) * bytes * panels_;
    const int64_t slot = kb % p_.config.stages;
    return packed_ + slot * k_blocks_.room() * bytes * panels_;
  }

  // Slice `slice` of `slices` of the packing of K block `kb`.
  void pack(int64_t kb, int64_t slice, int64_t slices) const {
    const bool by_panel = p_.b.row_stride == 1;
    const Range cut_range = split(by_panel ? panels_ : k_blocks_.size(kb), slices, slice);
    const Range cols = by_panel ? cut_range : Range{0, panels_};
    const Range groups = by_panel ? Range{0, k_blocks_.size(kb)} : cut_range;
    if (cut_range.size() == 0) return;
    const int64_t k = (k_blocks_.begin(kb) + groups.begin) * kGroup[kind_];
    const int64_t n = (panel_ + cols.begin) * kPanelCols;
    PackB pack;
    const int64_t offset = k * p_.b.row_stride + n * p_.b.col_stride;
    pack.b = {p_.b.data + offset * kElementBytes[kind_], p_.b.row_stride, p_.b.col_stride};
    const int64_t left = p_.k - k, most = groups.size() * kGroup[kind_];
    pack.k = left < most ? left : most;
    pack.n = p_.n - n;
    pack.groups = groups.size();
    pack.panels = cols.size();
    const char* block = block_at(kb, &pack.panel_bytes);
    pack.dst = const_cast<char*>(block) + cols.begin * pack.panel_bytes + groups.begin * kGroupBytes[kind_];
    t_.pack_b[kind_](pack);
  }

  // All of K for one row block and the current columns. Sums are finished as soon as they are complete; where
  // one K block is all of K, they need no more room than one step's columns.
  void columns_of_block(int64_t row, int64_t rows, bool first_use, char* acc) const {
    const bool packing = !p_.prepacked && first_use, ahead = p_.config.stages == 2;
    const int64_t np = t_.np[kind_], steps = (panels_ + np - 1) / np;
    Tile tile;
    tile.a = a_ + row * r_.a_groups_ * t_.a_words[kind_];
    tile.rows = rows;
    tile.total_groups = r_.a_groups_;
    tile.group_bytes = kGroupBytes[kind_];
    tile.wide = wide_;
    const bool whole = k_blocks_.count == 1;
    tile.acc_stride = (whole && np < panels_ ? np : panels_) * kPanelCols;
    tile.row_start = r_.starts_or_null(starts_ ? starts_ + row : nullptr);
    if (packing && ahead) pack(0, 0, 1);
    for (int64_t kb = 0; kb < k_blocks_.count; ++kb) {
      if (packing && !ahead) pack(kb, 0, 1);
      const char* block = block_at(kb, &tile.panel_bytes);
      tile.first_group = k_blocks_.begin(kb);
      tile.groups = k_blocks_.size(kb);
      for (int64_t step = 0; step < steps; ++step) {
        const int64_t panel = step * np;
        tile.panels = panels_ - panel < np ? panels_ - panel : np;
        tile.b = block + panel * tile.panel_bytes;
        tile.acc = acc + (whole ? 0 : panel * kPanelCols * 4);
        tile.prefetch = ahead ? next_panel(block, panel, kb, tile.panel_bytes, packing) : nullptr;
        t_.tile[kind_](tile);
        if (kb + 1 == k_blocks_.count) {
          const int64_t first = panel_ + panel;
          r_.finish(tile.acc, tile.acc_stride, row0_ + row, rows, first * kPanelCols,
                    r_.panel_cols(first, tile.panels));
        }
        if (packing && ahead && kb + 1 < k_blocks_.count) pack(kb + 1, step, steps);
      }
    }
  }

  // The panel used after `panel` of this block; null when it is still being packed or there is none.
  const char* next_panel(const char* block, int64_t panel, int64_t kb, int64_t panel_bytes,
                         bool packing) const {
    const int64_t np = t_.np[kind_];
    if (panel + np < panels_) return block + (panel + np) * panel_bytes;
    if (packing || kb + 1 == k_blocks_.count) return nullptr;
    int64_t ignored;
    return block_at(kb + 1, &ignored);
  }

  const Runner& r_;
  const Problem& p_;
  const KernelTable& t_;
  const Kind kind_;
  const uint32_t* a_;
  const int32_t* starts_;
  const int64_t row0_;
  const Parts row_blocks_;
  Parts k_blocks_;
  int64_t panel_ = 0, panels_ = 0;
  char* packed_ = nullptr;
  char* wide_ = nullptr;
  bool reused_ = false;
};

// Packs the row blocks of rows [row0, ...): each block's row tiles one after another.
void Runner::pack_row_blocks(int64_t row0, const Parts& blocks, uint32_t* to, int32_t* starts,
                             int most_threads) const {
  int64_t tiles = 0;
  const int64_t mr = t_.mr[kind_], unit = t_.row_unit[kind_];
  for (int64_t i = 0; i < blocks.count; ++i) tiles += cut(blocks.size(i), mr, unit).count;
  const int64_t rows = blocks.total;
  const int threads = rows * p_.k < kSerialPackElements ? 1 : most_threads;
  parallel_for(tiles, threads, [&](int64_t begin, int64_t end, int) {
    int64_t at = 0;
    for (int64_t i = 0; i < blocks.count && at < end; ++i) {
      const Parts cuts = cut(blocks.size(i), mr, unit);
      for (int64_t j = 0; j < cuts.count && at < end; ++j, ++at) {
        if (at < begin) continue;
        const int64_t row = blocks.begin(i) + cuts.begin(j);
        t_.pack_a[kind_](
            {a_at(row0 + row), cuts.size(j), p_.k, to + row * a_groups_ * t_.a_words[kind_], starts + row});
      }
    }
  });
}

// Scratch of the blocked schedule: offsets, and bytes of one thread's share.
struct Runner::Scratch {
  int64_t a, a_bytes, starts, starts_bytes, acc, acc_bytes, packed, packed_bytes, wide, wide_bytes;
};

// Rows [rows.begin, rows.end) in bands of at most `band`, each packed and multiplied by a grid of threads; as
// one lane of several by the calling thread alone.
void Runner::run_bands(Range rows, int64_t band, int64_t lane, bool alone, const Scratch& at, char* base) {
  const int64_t unit = t_.row_unit[kind_], tile_m = padded_rows(p_.config.tile_m);
  uint32_t* packed_a = reinterpret_cast<uint32_t*>(base + at.a + lane * at.a_bytes);
  int32_t* starts = reinterpret_cast<int32_t*>(base + at.starts + lane * at.starts_bytes);
  const Parts bands = cut(rows.size(), band, unit);
  for (int64_t i = 0; i < bands.count; ++i) {
    const int64_t row0 = rows.begin + bands.begin(i);
    const Parts blocks = cut(bands.size(i), tile_m, unit);
    pack_row_blocks(row0, blocks, packed_a, starts, alone ? 1 : threads_);
    const Grid grid = choose_grid(blocks.count, panels_, alone ? 1 : threads_, p_.prepacked, tile_m);
    auto task = [&](int index, int) {
      const Session session(t_, kind_);
      Blocked blocked(*this, packed_a, starts, row0, blocks);
      const int64_t own = lane + index;
      blocked.share(split(blocks.count, grid.m, index / grid.n), split(panels_, grid.n, index % grid.n),
                    base + at.acc + own * at.acc_bytes, base + at.packed + own * at.packed_bytes,
                    base + at.wide + own * at.wide_bytes);
    };
    if (alone) {
      task(0, 1);
    } else {
      run_tasks(static_cast<int>(grid.m * grid.n), task);
    }
  }
}

bool Runner::run_blocked() {
  const int64_t row_bytes = a_groups_ * t_.a_words[kind_] * 4;
  const int64_t unit = t_.row_unit[kind_], tile_m = padded_rows(p_.config.tile_m);
  // Where the best grid divides rows alone and B is packed already, threads never wait for each other: each
  // packs the rows that it uses, which stay in its own caches.
  const Parts row_blocks = cut(p_.m, tile_m, unit);
  const Grid whole = choose_grid(row_blocks.count, panels_, threads_, p_.prepacked, tile_m);
  const int64_t lanes = p_.prepacked && whole.n == 1 ? whole.m : 1;
  const int64_t most = (row_blocks.count + lanes - 1) / lanes * row_blocks.room();
  int64_t band = (p_.prepacked ? t_.band_bytes[kind_] : kPackedABytes) / row_bytes / tile_m * tile_m;
  // Every thread finds a row block in a band, where there are fewer panels than threads.
  const int64_t fewest = lanes > 1 ? tile_m : (threads_ + panels_ - 1) / panels_ * tile_m;
  if (band < fewest) band = fewest;
  if (band > most) band = padded_rows(most);
  const int64_t acc_rows = padded_rows(tile_m < p_.m ? tile_m : p_.m);
  Scratch at;
  at.a_bytes = round_up(band * row_bytes, kAlign);
  at.starts_bytes = round_up(band * 4, kAlign);
  at.acc_bytes = round_up(acc_rows * p_.config.tile_n * 4, kAlign);
  at.packed_bytes = round_up(Blocked::packed_b_bytes(*this, band > tile_m), kAlign);
  at.wide_bytes = round_up(Blocked::k_blocks(*this).room() * t_.np[kind_] * 128, kAlign);
  Layout layout;
  const int64_t vectors = layout.add(vectors_bytes());
  at.a = layout.add(at.a_bytes * lanes);
  at.starts = layout.add(at.starts_bytes * lanes);
  at.acc = layout.add(at.acc_bytes * threads_);
  at.packed = layout.add(at.packed_bytes * threads_);
  at.wide = layout.add(at.wide_bytes * threads_);
  char* base = workspace_.get(layout.size());
  if (base == nullptr) return false;
  fill_vectors(base + vectors);
  if (lanes == 1) {
    run_bands({0, p_.m}, band, 0, false, at, base);
    return true;
  }
  auto lane_of = [&](int lane, int) {
    const Range mine = split(row_blocks.count, lanes, lane);
    const int64_t last = mine.end - 1;
    run_bands({row_blocks.begin(mine.begin), row_blocks.begin(last) + row_blocks.size(last)}, band, lane,
              true, at, base);
  };
  run_tasks(static_cast<int>(lanes), lane_of);
  return true;
}

}  // namespace tw::gemm
