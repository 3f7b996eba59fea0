// A checked grouped_gemm problem, and its execution as products of gemm.
#pragma once

#include <vector>

#include "gemm/host_run.hpp"

namespace tw::grouped_gemm {

// Rows [begin, end) of a and c that belong to one expert.
struct Group {
  int64_t expert, begin, end;
};

struct Problem {
  gemm::Problem whole;            // all rows, with b, bias and col_scale of expert 0
  std::vector<Group> groups;      // those that have rows
  int64_t rest;                   // rows from here on belong to nobody
  int64_t b_bytes;                // from one expert to the next
  int64_t bias_step, scale_step;  // the same in elements
};

// False when scratch memory could not be had; throws std::bad_alloc where there is none for bands of groups.
bool run(const Problem& problem);

}  // namespace tw::grouped_gemm
