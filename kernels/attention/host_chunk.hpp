// One thread's work: some rows of one sequence and key head over all packed keys they see.
#pragma once

#include "attention/host_packed.hpp"

namespace tw::attention {

// Where things are in a thread's memory.
class Plan {
 public:
  Plan(const Problem& p, const Shape& shape, int64_t most_rows);

  int64_t rows;  // most rows of a task, whole blocks
  Layout layout;
  int64_t q, o, m, l, low, high, place, slope, s, weights, pointers, finish, blocks;
  int64_t wide_q, row_scale, row_start, sums, portions;  // int8
};

class Chunk {
 public:
  Chunk(const Problem& p, const Shape& shape, const Plan& plan, const Task& task, const Packed& packed,
        char* memory);
  void run();

 private:
  void place_rows();
  void take_rows(int64_t block);
  int64_t block_rows(int64_t block) const;
  void pass_over(int64_t first, int64_t last);
  bool see(int64_t key_block, int64_t block, Block* found) const;
  void finish(int64_t block);
  void point(const View& view, int64_t block, int64_t bytes, char** rows) const;

  template <class T>
  T* in(int64_t offset, int64_t row = 0) const {
    return reinterpret_cast<T*>(memory_ + offset) + row;
  }

  const Problem& p_;
  const Shape& shape_;
  const Plan& plan_;
  const Task& task_;
  const Packed& packed_;
  char* memory_;
  int64_t group_, blocks_;
};

}  // namespace tw::attention
