#include "attention/host_packed.hpp"

#include <algorithm>
#include <limits>

namespace tw::attention {

Shape::Shape(const Problem& p) {
  const KernelTable& t = *p.kernels;
  per = kGroup[p.kind];
  groups = round_up(p.dk, t.d_unit[p.kind]) / per;
  dv = round_up(p.dv, kDvUnit);
  unit = t.key_unit[p.kind];
  tile_m = p.tile_m;
  tile_n = round_up(p.tile_n, unit);
  key_bytes = groups * 4;
  value_bytes = dv * 4;
}

Sight sight_of(const Problem& p, const Task& task, int64_t place) {
  const int64_t wide = p.window == 0 ? std::numeric_limits<int32_t>::max() : p.window;
  const int64_t beyond = p.causal ? place : place + wide - 1;
  return {std::min(std::max<int64_t>(0, place - wide + 1), task.keys),
          std::max<int64_t>(std::min(task.keys - 1, beyond), -1)};
}

// Places never fall from row to row, so neither do the first and the last key seen.
Sight sight_of(const Problem& p, const Task& task) {
  if (task.rows() <= 0) return {0, -1};
  const int64_t group = p.heads / p.key_heads, first = task.keys - task.queries;
  return {sight_of(p, task, first + task.begin / group).low,
          sight_of(p, task, first + (task.end - 1) / group).high};
}

Packed::Places Packed::places(const Problem& p, const Shape& shape, int64_t keys) {
  const int64_t blocks = shape.blocks(keys), padded = blocks * shape.tile_n;
  Layout layout;
  Places at{};
  at.k = layout.add(padded * shape.key_bytes);
  at.v = layout.add(padded / shape.per * shape.value_bytes);
  at.special = layout.add(padded * 4);
  at.specials = layout.add(blocks * 8);
  if (p.kind == kI8) {
    at.mean = layout.add(blocks * p.dk * 4);
    at.key_scale = layout.add(blocks * 4);
    at.dv_scale = layout.add(blocks * shape.dv * 4);
    at.key_special = layout.add(padded * 4);
    at.key_specials = layout.add(blocks * 8);
  }
  at.size = layout.size();
  return at;
}

int64_t Packed::bytes(const Problem& p, const Shape& shape, int64_t keys) {
  return places(p, shape, keys).size;
}

int64_t Packed::room_bytes(const Problem& p, const Shape& shape) {
  // int8 widens before it rounds, and rounds to quads before it transposes.
  if (p.kind == kI8) return shape.tile_n * std::max(4 * p.dk, 5 * shape.dv) + kAlign;
  return shape.tile_n / shape.per * shape.value_bytes;
}

Packed::Packed(const Problem& p, const Shape& shape, const Task& task, char* memory)
    : p_(p), shape_(shape), task_(task), memory_(memory), at_(places(p, shape, task.keys)) {}

int64_t Packed::keys_of(int64_t block) const {
  return std::min(shape_.tile_n, task_.keys - block * shape_.tile_n);
}

Matrix Packed::source(const View& view, int64_t block) const {
  const int64_t key = task_.first_key + block * shape_.tile_n;
  return {view.at(task_.batch, key, task_.key_head, kElementBytes[p_.element]), view.stride[1],
          view.stride[3]};
}

void Packed::pack_keys(int64_t block, char* room) const {
  PackK k{};
  k.k = source(p_.k, block);
  k.keys = keys_of(block);
  k.padded = round_up(k.keys, shape_.unit);
  k.dk = p_.dk;
  k.element = p_.element;
  k.dst = memory_ + at_.k + block * shape_.tile_n * shape_.key_bytes;
  if (p_.kind == kI8) {
    k.room = reinterpret_cast<float*>(room);
    k.mean = in<float>(at_.mean, block * p_.dk);
    k.key_scale = in<float>(at_.key_scale, block);
    k.special = in<int32_t>(at_.key_special, block * shape_.tile_n);
    k.specials = in<int64_t>(at_.key_specials, block);
    *k.specials = 0;
  }
  p_.kernels->pack_k[p_.kind](k);
}

void Packed::pack_values(int64_t block, char* room) const {
  PackV v{};
  v.v = source(p_.v, block);
  v.keys = keys_of(block);
  v.padded = round_up(v.keys, shape_.unit);
  v.dv = p_.dv;
  v.element = p_.element;
  v.dst = memory_ + at_.v + block * shape_.tile_n / shape_.per * shape_.value_bytes;
  v.special = in<int32_t>(at_.special, block * shape_.tile_n);
  v.specials = in<int64_t>(at_.specials, block);
  *v.specials = 0;
  if (p_.kind == kI8) v.dv_scale = in<float>(at_.dv_scale, block * shape_.dv);
  v.room = room;
  p_.kernels->pack_v[p_.kind](v);
}

void Packed::pack(int64_t block, char* room) const {
  pack_keys(block, room);
  pack_values(block, room);
}

void Packed::show(int64_t block, Block* b) const {
  b->key0 = block * shape_.tile_n;
  b->k = memory_ + at_.k + b->key0 * shape_.key_bytes;
  b->v = memory_ + at_.v + b->key0 / shape_.per * shape_.value_bytes;
  b->special = in<int32_t>(at_.special, b->key0);
  b->specials = *in<int64_t>(at_.specials, block);
  b->source = source(p_.v, block);
  if (p_.kind != kI8) return;
  Whole& w = b->whole;
  w.mean = in<float>(at_.mean, block * p_.dk);
  w.key_scale = *in<float>(at_.key_scale, block);
  w.dv_scale = in<float>(at_.dv_scale, block * shape_.dv);
  w.special = in<int32_t>(at_.key_special, b->key0);
  w.specials = *in<int64_t>(at_.key_specials, block);
  w.keys = source(p_.k, block);
}

Fetch Packed::fetch(int64_t first, int64_t last) const {
  last = std::min(last, shape_.blocks(task_.keys));
  if (first >= last) return {};
  const int64_t keys = (last - first) * shape_.tile_n;
  return {memory_ + at_.k + first * shape_.tile_n * shape_.key_bytes, keys * shape_.key_bytes,
          memory_ + at_.v + first * shape_.tile_n / shape_.per * shape_.value_bytes,
          keys / shape_.per * shape_.value_bytes};
}

}  // namespace tw::attention
