#include "attention/host_chunk.hpp"

#include <algorithm>
#include <limits>

namespace tw::attention {
namespace {

constexpr float kLog2E = 1.4426950408889634f;
// Keys packed together, which all rows of a task pass over, block after block: rows stay in the first cache
// meanwhile.
constexpr int64_t kPackKeys = 512;

}  // namespace

Plan::Plan(const Problem& p, int64_t most_rows) {
  const KernelTable& t = *p.kernels;
  const int64_t per = kGroup[p.kind];
  groups = round_up(p.dk, t.d_unit[p.kind]) / per;
  dv = round_up(p.dv, kDvUnit);
  unit = t.key_unit[p.kind];
  tile_m = p.tile_m;
  tile_n = round_up(p.tile_n, unit);
  pack_n = round_up(kPackKeys, tile_n);
  rows = round_up(most_rows, tile_m);
  key_bytes = groups * 4;
  value_bytes = dv * 4;
  q = layout.add(rows * key_bytes);
  o = layout.add(rows * dv * 4);
  for (int64_t* each : {&m, &l, &low, &high, &place, &slope}) *each = layout.add(rows * 4);
  k = layout.add(pack_n * key_bytes);
  v = layout.add(pack_n / per * value_bytes);
  // int8 widens values before it rounds them to quads.
  room = layout.add(p.kind == kI8 ? pack_n * (4 * dv + dv) + kAlign : pack_n / per * value_bytes);
  s = layout.add(2 * tile_m * tile_n * 4);
  weights = layout.add(2 * tile_m * tile_n / per * 4);
  special = layout.add(pack_n * 4);
  pointers = layout.add(tile_m * 8 * 2);
  finish = layout.add(kPanelRows * dv * 4);
  blocks = layout.add(rows / tile_m * (pack_n / tile_n) * static_cast<int64_t>(sizeof(Block)));
  if (p.kind == kI8) add_whole(p);
}

void Plan::add_whole(const Problem& p) {
  whole.q = layout.add(rows * p.dk * 4);
  whole.row_scale = layout.add(rows * 4);
  whole.row_start = layout.add(rows * 4);
  whole.room = layout.add(pack_n * p.dk * 4);
  whole.mean = layout.add(p.dk * 4);
  whole.dv_scale = layout.add(dv * 4);
  whole.special = layout.add(pack_n * 4);
  whole.sums = layout.add(tile_m * dv * 4);
  whole.portions = layout.add(tile_m * 4);
}

Chunk::Chunk(const Problem& p, const Plan& plan, const Task& task, char* memory)
    : p_(p), plan_(plan), task_(task), memory_(memory), group_(p.heads / p.key_heads) {
  blocks_ = (task.rows() + plan.tile_m - 1) / plan.tile_m;
}

int64_t Chunk::block_rows(int64_t block) const {
  return std::min(plan_.tile_m, task_.rows() - block * plan_.tile_m);
}

// Places, sight and slopes of all rows. Rows that fill up a block are copies of the last one.
void Chunk::place_rows() {
  const int64_t wide = p_.window == 0 ? std::numeric_limits<int32_t>::max() : p_.window;
  for (int64_t i = 0; i < blocks_ * plan_.tile_m; ++i) {
    const int64_t row = std::min(task_.begin + i, task_.end - 1);
    const int64_t place = task_.keys - task_.queries + row / group_;
    const int64_t beyond = p_.causal ? place : place + wide - 1;
    const int64_t low = std::max<int64_t>(0, place - wide + 1), high = std::min(task_.keys - 1, beyond);
    *in<int32_t>(plan_.place, i) = static_cast<int32_t>(place);
    *in<int32_t>(plan_.low, i) = static_cast<int32_t>(std::min(low, task_.keys));
    *in<int32_t>(plan_.high, i) = static_cast<int32_t>(std::max<int64_t>(high, -1));
    if (p_.alibi == nullptr) continue;
    const int64_t head = task_.key_head * group_ + row % group_;
    *in<float>(plan_.slope, i) = p_.alibi[head * p_.alibi_stride] * kLog2E;
  }
}

// Where each row of a block starts in a tensor.
void Chunk::point(const View& view, int64_t block, int64_t bytes, char** rows) const {
  const int64_t first = task_.begin + block * plan_.tile_m, head = task_.key_head * group_;
  int64_t query = task_.first_query + first / group_, member = first % group_;
  for (int64_t i = 0; i < block_rows(block); ++i) {
    rows[i] = view.at(task_.batch, query, head + member, bytes);
    if (++member < group_) continue;
    member = 0;
    ++query;
  }
}

void Chunk::take_rows(int64_t block) {
  char** rows = in<char*>(plan_.pointers);
  point(p_.q, block, kElementBytes[p_.element], rows);
  const int64_t at = block * plan_.tile_m;
  PackQ pack{};
  pack.rows = rows;
  pack.count = block_rows(block);
  pack.panels = (pack.count + kPanelRows - 1) / kPanelRows;
  pack.stride = p_.q.stride[3];
  pack.dk = p_.dk;
  pack.element = p_.element;
  pack.dst = memory_ + plan_.q + at * plan_.key_bytes;
  pack.wide = in<float>(plan_.whole.q, at * p_.dk);
  pack.row_scale = in<float>(plan_.whole.row_scale, at);
  pack.row_start = in<int32_t>(plan_.whole.row_start, at);
  p_.kernels->pack_q[p_.kind](pack);
  std::fill_n(in<float>(plan_.o, at * plan_.dv), plan_.tile_m * plan_.dv, 0.0f);
  std::fill_n(in<float>(plan_.l, at), plan_.tile_m, 0.0f);
  std::fill_n(in<float>(plan_.m, at), plan_.tile_m, -std::numeric_limits<float>::infinity());
}

Matrix Chunk::source(const View& view, int64_t key0) const {
  const char* data = view.at(task_.batch, task_.first_key + key0, task_.key_head, kElementBytes[p_.element]);
  return {data, view.stride[1], view.stride[3]};
}

void Chunk::pack_keys(int64_t key0, int64_t keys) {
  PackK k{};
  key_specials_ = 0;
  k.k = source(p_.k, key0);
  k.keys = keys;
  k.padded = round_up(keys, plan_.unit);
  k.dk = p_.dk;
  k.element = p_.element;
  k.dst = memory_ + plan_.k;
  k.room = in<float>(plan_.whole.room);
  k.mean = in<float>(plan_.whole.mean);
  k.key_scale = &key_scale_;
  k.special = in<int32_t>(plan_.whole.special);
  k.specials = &key_specials_;
  p_.kernels->pack_k[p_.kind](k);
}

void Chunk::pack_values(int64_t key0, int64_t keys) {
  PackV v{};
  specials_ = 0;
  v.v = source(p_.v, key0);
  v.keys = keys;
  v.padded = round_up(keys, plan_.unit);
  v.dv = p_.dv;
  v.element = p_.element;
  v.dst = memory_ + plan_.v;
  v.special = in<int32_t>(plan_.special);
  v.specials = &specials_;
  v.dv_scale = in<float>(plan_.whole.dv_scale);
  v.room = memory_ + plan_.room;
  p_.kernels->pack_v[p_.kind](v);
}

Whole Chunk::whole(int64_t at, int64_t key0) const {
  const Plan::Whole& from = plan_.whole;
  Whole w{};
  w.q = in<float>(from.q, at * p_.dk);
  w.dk = p_.dk;
  w.row_scale = in<float>(from.row_scale, at);
  w.row_start = in<int32_t>(from.row_start, at);
  w.mean = in<float>(from.mean);
  w.key_scale = key_scale_;
  w.dv_scale = in<float>(from.dv_scale);
  w.special = in<int32_t>(from.special);
  w.specials = key_specials_;
  w.keys = source(p_.k, key0);
  w.sums = in<int32_t>(from.sums);
  w.portions = in<float>(from.portions);
  return w;
}

// What a block of rows has to do with packed keys [first, last); false for nothing.
bool Chunk::see(int64_t key0, int64_t first, int64_t last, int64_t block, Block* found) const {
  const int64_t at = block * plan_.tile_m, count = block_rows(block);
  const int64_t panels = (count + kPanelRows - 1) / kPanelRows;
  const int32_t *low = in<int32_t>(plan_.low, at), *high = in<int32_t>(plan_.high, at);
  // Places never fall from row to row, so neither do the first and the last key seen.
  const int64_t from = std::max<int64_t>(low[0] - key0, first);
  const int64_t to = std::min<int64_t>(high[count - 1] + 1 - key0, last);
  if (from >= to) return false;
  Block b{};
  b.first = from / plan_.unit * plan_.unit;
  b.last = round_up(to, plan_.unit);
  b.panels = panels;
  b.groups = plan_.groups;
  b.dv = plan_.dv;
  b.q = memory_ + plan_.q + at * plan_.key_bytes;
  b.k = memory_ + plan_.k;
  b.v = memory_ + plan_.v;
  b.o = in<float>(plan_.o, at * plan_.dv);
  b.m = in<float>(plan_.m, at);
  b.l = in<float>(plan_.l, at);
  b.key0 = key0;
  b.low = low;
  b.high = high;
  b.masked = low[count - 1] > key0 + b.first || high[0] < key0 + b.last - 1;
  b.exact = p_.lse.data != nullptr || p_.element != kElementBF16;
  b.scale = p_.scale * kLog2E;
  b.cap = p_.softcap * kLog2E;
  b.cap_scale = p_.softcap != 0.0f ? p_.scale / p_.softcap : 0.0f;
  b.slope = p_.alibi != nullptr ? in<float>(plan_.slope, at) : nullptr;
  b.place = in<int32_t>(plan_.place, at);
  b.special = in<int32_t>(plan_.special);
  b.specials = specials_;
  b.source = source(p_.v, key0);
  b.element = p_.element;
  b.dv_used = p_.dv;
  if (p_.kind == kI8) b.whole = whole(at, key0);
  *found = b;
  return true;
}

// Neighbours get rooms of their own.
void Chunk::give_room(int64_t place, Block* found) const {
  const int64_t room = place % 2 * plan_.tile_m * plan_.tile_n;
  found->s = in<float>(plan_.s, room);
  found->p = memory_ + plan_.weights + room / kGroup[p_.kind] * 4;
}

// Part `part` of the keys behind those that are passed over now.
Fetch Chunk::fetch(int64_t key0, int64_t part, int64_t parts) const {
  const int64_t bytes = kElementBytes[p_.element], last = *in<int32_t>(plan_.high, task_.rows() - 1);
  const int64_t next = key0 + plan_.pack_n, count = std::clamp<int64_t>(last + 1 - next, 0, plan_.pack_n);
  const int64_t first = part * count / parts;
  Fetch f{};
  f.rows = (part + 1) * count / parts - first;
  if (f.rows == 0 || p_.k.stride[3] != 1 || p_.v.stride[3] != 1) return Fetch{};
  f.k = source(p_.k, next + first).data;
  f.v = source(p_.v, next + first).data;
  f.k_row = p_.k.stride[1] * bytes;
  f.v_row = p_.v.stride[1] * bytes;
  f.k_bytes = p_.dk * bytes;
  f.v_bytes = p_.dv * bytes;
  return f;
}

void Chunk::pass_over(int64_t key0, int64_t keys) {
  Block* blocks = in<Block>(plan_.blocks);
  int64_t count = 0;
  for (int64_t block = 0; block < blocks_; ++block) {
    for (int64_t first = 0; first < keys; first += plan_.tile_n) {
      if (!see(key0, first, std::min(first + plan_.tile_n, keys), block, blocks + count)) continue;
      give_room(count, blocks + count);
      ++count;
    }
  }
  for (int64_t i = 0; i < count; ++i) blocks[i].fetch = fetch(key0, i, count);
  p_.kernels->blocks[p_.kind](blocks, count);
}

void Chunk::finish(int64_t block) {
  const int64_t at = block * plan_.tile_m;
  char** rows = in<char*>(plan_.pointers);
  char** sums = rows + plan_.tile_m;
  point(p_.o, block, kElementBytes[p_.element], rows);
  if (p_.lse.data != nullptr) point(p_.lse, block, 4, sums);
  Finish f{};
  f.o = in<float>(plan_.o, at * plan_.dv);
  f.m = in<float>(plan_.m, at);
  f.l = in<float>(plan_.l, at);
  f.count = block_rows(block);
  f.dv = plan_.dv;
  f.dv_used = p_.dv;
  f.rows = rows;
  f.stride = p_.o.stride[3];
  f.element = p_.element;
  f.lse = p_.lse.data != nullptr ? reinterpret_cast<float* const*>(sums) : nullptr;
  f.room = in<float>(plan_.finish);
  p_.kernels->finish(f);
}

void Chunk::run() {
  place_rows();
  for (int64_t block = 0; block < blocks_; ++block) take_rows(block);
  const int64_t low = *in<int32_t>(plan_.low), high = *in<int32_t>(plan_.high, task_.rows() - 1);
  for (int64_t key0 = low / plan_.pack_n * plan_.pack_n; key0 <= high; key0 += plan_.pack_n) {
    const int64_t keys = std::min({plan_.pack_n, task_.keys - key0, high + 1 - key0});
    pack_keys(key0, keys);
    pack_values(key0, keys);
    pass_over(key0, keys);
  }
  for (int64_t block = 0; block < blocks_; ++block) finish(block);
}

}  // namespace tw::attention
