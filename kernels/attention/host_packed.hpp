// Keys and values of one sequence and key head as the products want them, packed once for all rows.
//
// They are packed block by block and, of a block, head by head: rows lie a row of all heads apart, and the
// pages they lie on are visited while they are near.
#pragma once

#include "_host/workspace.hpp"
#include "attention/host_run.hpp"

namespace tw::attention {

// Sizes that follow from a problem's kind and tiles.
struct Shape {
  explicit Shape(const Problem& p);

  int64_t groups, dv;   // padded
  int64_t key_bytes;    // of a packed key
  int64_t value_bytes;  // of a packed group of keys of V
  int64_t per;          // keys in a group
  int64_t tile_m, tile_n, unit;

  int64_t blocks(int64_t keys) const { return (keys + tile_n - 1) / tile_n; }
};

// One sequence and key head, of which rows [begin, end) are meant: row r is query r / group of the group's
// head r % group.
struct Task {
  int64_t batch, key_head;
  int64_t first_query, queries, first_key, keys;
  int64_t begin, end;

  int64_t rows() const { return end - begin; }
};

// First and last key that a row sees, by its place; last < first for none.
struct Sight {
  int64_t low, high;
};
Sight sight_of(const Problem& p, const Task& task, int64_t place);
// What all rows of a task see together.
Sight sight_of(const Problem& p, const Task& task);

class Packed {
 public:
  // Bytes for a number of keys, and for a thread that packs.
  static int64_t bytes(const Problem& p, const Shape& shape, int64_t keys);
  static int64_t room_bytes(const Problem& p, const Shape& shape);

  Packed(const Problem& p, const Shape& shape, const Task& task, char* memory);

  void pack(int64_t block, char* room) const;

  // Points a block of rows at packed keys and values.
  void show(int64_t block, Block* b) const;
  // Bytes of packed keys and values of blocks [first, last), to be fetched.
  Fetch fetch(int64_t first, int64_t last) const;

 private:
  struct Places {
    int64_t k, v, special, specials, mean, key_scale, dv_scale, key_special, key_specials, size;
  };
  static Places places(const Problem& p, const Shape& shape, int64_t keys);

  Matrix source(const View& view, int64_t block) const;
  void pack_keys(int64_t block, char* room) const;
  void pack_values(int64_t block, char* room) const;
  int64_t keys_of(int64_t block) const;

  template <class T>
  T* in(int64_t offset, int64_t index) const {
    return reinterpret_cast<T*>(memory_ + offset) + index;
  }

  const Problem& p_;
  const Shape& shape_;
  const Task& task_;
  char* memory_;
  Places at_;
};

}  // namespace tw::attention
