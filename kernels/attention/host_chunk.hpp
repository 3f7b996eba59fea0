// One thread's work: some rows of one sequence and key head over all keys they see.
#pragma once

#include "_host/workspace.hpp"
#include "attention/host_run.hpp"

namespace tw::attention {

// Rows [begin, end) of one sequence and key head; row r is query r / group of the group's head r % group.
struct Task {
  int64_t batch, key_head;
  int64_t first_query, queries, first_key, keys;
  int64_t begin, end;

  int64_t rows() const { return end - begin; }
};

// Sizes of a problem that follow from its kind and tiles, and where things are in a thread's memory.
class Plan {
 public:
  Plan(const Problem& p, int64_t most_rows);

  int64_t groups, dv;   // padded
  int64_t key_bytes;    // of a packed key
  int64_t value_bytes;  // of a packed group of keys of V
  int64_t tile_m, tile_n, unit;
  int64_t pack_n;             // keys packed together, whole blocks
  int64_t rows;  // most rows of a task, whole blocks
  Layout layout;
  int64_t q, o, m, l, low, high, place, slope, k, v, room, s, weights, special, pointers, finish, blocks;

  // int8: what rows were, what their codes are worth, and of packed keys and values the same.
  struct Whole {
    int64_t q, row_scale, row_start, room, mean, dv_scale, special, sums, portions;
  } whole{};

 private:
  void add_whole(const Problem& p);
};

class Chunk {
 public:
  Chunk(const Problem& p, const Plan& plan, const Task& task, char* memory);
  void run();

 private:
  void place_rows();
  void take_rows(int64_t block);
  int64_t block_rows(int64_t block) const;
  void pass_over(int64_t key0, int64_t keys);
  bool see(int64_t key0, int64_t first, int64_t last, int64_t block, Block* found) const;
  void give_room(int64_t place, Block* found) const;
  Fetch fetch(int64_t key0, int64_t part, int64_t parts) const;
  void pack_keys(int64_t key0, int64_t keys);
  void pack_values(int64_t key0, int64_t keys);
  Matrix source(const View& view, int64_t key0) const;
  Whole whole(int64_t at, int64_t key0) const;
  void finish(int64_t block);
  void point(const View& view, int64_t block, int64_t bytes, char** rows) const;

  template <class T>
  T* in(int64_t offset, int64_t row = 0) const {
    return reinterpret_cast<T*>(memory_ + offset) + row;
  }

  const Problem& p_;
  const Plan& plan_;
  const Task& task_;
  char* memory_;
  int64_t group_, blocks_;
  int64_t specials_ = 0, key_specials_ = 0;
  float key_scale_ = 0.0f;
};

}  // namespace tw::attention
