#include "attention/host_chunk.hpp"

#include <algorithm>
#include <limits>

namespace tw::attention {
namespace {

constexpr float kLog2E = 1.4426950408889634f;
// Keys that all rows of a task pass over before the next ones: packed, they stay in the second cache, while
// rows of a block stay in the first.
constexpr int64_t kNearKeys = 512;

// Part `part` of what is fetched.
Fetch part_of(const Fetch& f, int64_t part, int64_t parts) {
  const int64_t k = part * f.k_bytes / parts, v = part * f.v_bytes / parts;
  return {f.k + k, (part + 1) * f.k_bytes / parts - k, f.v + v, (part + 1) * f.v_bytes / parts - v};
}

}  // namespace

Plan::Plan(const Problem& p, const Shape& shape, int64_t most_rows) {
  const int64_t near = (kNearKeys + shape.tile_n - 1) / shape.tile_n;
  rows = round_up(most_rows, shape.tile_m);
  q = layout.add(rows * shape.key_bytes);
  o = layout.add(rows * shape.dv * 4);
  for (int64_t* each : {&m, &l, &low, &high, &place, &slope}) *each = layout.add(rows * 4);
  s = layout.add(shape.tile_m * shape.tile_n * 4);
  weights = layout.add(shape.tile_m * shape.tile_n / shape.per * 4);
  pointers = layout.add(shape.tile_m * 8 * 2);
  finish = layout.add(kPanelRows * shape.dv * 4);
  blocks = layout.add(rows / shape.tile_m * near * static_cast<int64_t>(sizeof(Block)));
  if (p.kind != kI8) return;
  wide_q = layout.add(rows * p.dk * 4);
  row_scale = layout.add(rows * 4);
  row_start = layout.add(rows * 4);
  sums = layout.add(shape.tile_m * shape.dv * 4);
  portions = layout.add(shape.tile_m * 4);
}

Chunk::Chunk(const Problem& p, const Shape& shape, const Plan& plan, const Task& task, const Packed& packed,
             char* memory)
    : p_(p),
      shape_(shape),
      plan_(plan),
      task_(task),
      packed_(packed),
      memory_(memory),
      group_(p.heads / p.key_heads),
      blocks_((task.rows() + shape.tile_m - 1) / shape.tile_m) {}

int64_t Chunk::block_rows(int64_t block) const {
  return std::min(shape_.tile_m, task_.rows() - block * shape_.tile_m);
}

// Places, sight and slopes of all rows. Rows that fill up a block are copies of the last one.
void Chunk::place_rows() {
  for (int64_t i = 0; i < blocks_ * shape_.tile_m; ++i) {
    const int64_t row = std::min(task_.begin + i, task_.end - 1);
    const int64_t place = task_.keys - task_.queries + row / group_;
    const Sight sight = sight_of(p_, task_, place);
    *in<int32_t>(plan_.place, i) = static_cast<int32_t>(place);
    *in<int32_t>(plan_.low, i) = static_cast<int32_t>(sight.low);
    *in<int32_t>(plan_.high, i) = static_cast<int32_t>(sight.high);
    if (p_.alibi == nullptr) continue;
    const int64_t head = task_.key_head * group_ + row % group_;
    *in<float>(plan_.slope, i) = p_.alibi[head * p_.alibi_stride] * kLog2E;
  }
}

// Where each row of a block starts in a tensor.
void Chunk::point(const View& view, int64_t block, int64_t bytes, char** rows) const {
  const int64_t first = task_.begin + block * shape_.tile_m, head = task_.key_head * group_;
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
  const int64_t at = block * shape_.tile_m;
  PackQ pack{};
  pack.rows = rows;
  pack.count = block_rows(block);
  pack.panels = (pack.count + kPanelRows - 1) / kPanelRows;
  pack.stride = p_.q.stride[3];
  pack.dk = p_.dk;
  pack.element = p_.element;
  pack.dst = memory_ + plan_.q + at * shape_.key_bytes;
  if (p_.kind == kI8) {
    pack.wide = in<float>(plan_.wide_q, at * p_.dk);
    pack.row_scale = in<float>(plan_.row_scale, at);
    pack.row_start = in<int32_t>(plan_.row_start, at);
  }
  p_.kernels->pack_q[p_.kind](pack);
  std::fill_n(in<float>(plan_.o, at * shape_.dv), shape_.tile_m * shape_.dv, 0.0f);
  std::fill_n(in<float>(plan_.l, at), shape_.tile_m, 0.0f);
  std::fill_n(in<float>(plan_.m, at), shape_.tile_m, -std::numeric_limits<float>::infinity());
}

// What a block of rows has to do with a block of keys; false for nothing.
bool Chunk::see(int64_t key_block, int64_t block, Block* found) const {
  const int64_t key0 = key_block * shape_.tile_n, keys = std::min(shape_.tile_n, task_.keys - key0);
  const int64_t at = block * shape_.tile_m, count = block_rows(block);
  const int32_t *low = in<int32_t>(plan_.low, at), *high = in<int32_t>(plan_.high, at);
  const int64_t from = std::max<int64_t>(low[0] - key0, 0);
  const int64_t to = std::min<int64_t>(high[count - 1] + 1 - key0, keys);
  if (from >= to) return false;
  Block b{};
  packed_.show(key_block, &b);
  b.first = from / shape_.unit * shape_.unit;
  b.last = round_up(to, shape_.unit);
  b.panels = (count + kPanelRows - 1) / kPanelRows;
  b.groups = shape_.groups;
  b.dv = shape_.dv;
  b.q = memory_ + plan_.q + at * shape_.key_bytes;
  b.s = in<float>(plan_.s);
  b.p = memory_ + plan_.weights;
  b.o = in<float>(plan_.o, at * shape_.dv);
  b.m = in<float>(plan_.m, at);
  b.l = in<float>(plan_.l, at);
  b.low = low;
  b.high = high;
  b.masked = low[count - 1] > key0 + b.first || high[0] < key0 + b.last - 1;
  b.exact = p_.lse.data != nullptr || p_.element != kElementBF16;
  b.scale = p_.scale * kLog2E;
  b.cap = p_.softcap * kLog2E;
  b.cap_scale = p_.softcap != 0.0f ? p_.scale / p_.softcap : 0.0f;
  b.slope = p_.alibi != nullptr ? in<float>(plan_.slope, at) : nullptr;
  b.place = in<int32_t>(plan_.place, at);
  b.element = p_.element;
  b.dv_used = p_.dv;
  if (p_.kind == kI8) {
    b.whole.q = in<float>(plan_.wide_q, at * p_.dk);
    b.whole.dk = p_.dk;
    b.whole.row_scale = in<float>(plan_.row_scale, at);
    b.whole.row_start = in<int32_t>(plan_.row_start, at);
    b.whole.sums = in<int32_t>(plan_.sums);
    b.whole.portions = in<float>(plan_.portions);
  }
  *found = b;
  return true;
}

// All rows over blocks [first, last) of keys.
void Chunk::pass_over(int64_t first, int64_t last) {
  Block* blocks = in<Block>(plan_.blocks);
  int64_t count = 0;
  for (int64_t block = 0; block < blocks_; ++block) {
    for (int64_t key_block = first; key_block < last; ++key_block) {
      if (see(key_block, block, blocks + count)) ++count;
    }
  }
  const Fetch next = packed_.fetch(last, last + (last - first));
  for (int64_t i = 0; i < count; ++i) blocks[i].fetch = part_of(next, i, count);
  p_.kernels->blocks[p_.kind](blocks, count);
}

void Chunk::finish(int64_t block) {
  const int64_t at = block * shape_.tile_m;
  char** rows = in<char*>(plan_.pointers);
  char** sums = rows + shape_.tile_m;
  point(p_.o, block, kElementBytes[p_.element], rows);
  if (p_.lse.data != nullptr) point(p_.lse, block, 4, sums);
  Finish f{};
  f.o = in<float>(plan_.o, at * shape_.dv);
  f.m = in<float>(plan_.m, at);
  f.l = in<float>(plan_.l, at);
  f.count = block_rows(block);
  f.dv = shape_.dv;
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
  const Sight sight = sight_of(p_, task_);
  const int64_t near = std::max<int64_t>(1, kNearKeys / shape_.tile_n);
  for (int64_t first = sight.low / shape_.tile_n; first * shape_.tile_n <= sight.high; first += near) {
    pass_over(first, std::min(first + near, sight.high / shape_.tile_n + 1));
  }
  for (int64_t block = 0; block < blocks_; ++block) finish(block);
}

}  // namespace tw::attention
