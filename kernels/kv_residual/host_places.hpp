// Where residuals and float vectors of a call lie in their pools.
#pragma once

#include "_kv/host_tensors.hpp"
#include "kv_residual/host_kernels.hpp"

namespace tw::kv_residual {

struct Pools {
  int64_t rows, frows;  // R and F
};

// Refuses a page out of range and, if `distinct`, one that stands twice.
bool check_pages(const Call& call, const tw_tensor& page_ids, int64_t pages, bool distinct);

// Gives the selected vectors of [N, 16, heads] their rows, from used[0] and used[1] on; both become the rows
// in use then. Refuses a selection above 2 and counters outside the pools.
bool place_selected(const Call& call, const tw_tensor& select, const Pools& pools, int64_t used[2],
                    Place* places);

// Reads masks and ranks of the pages of a call. Refuses a token in both masks and a run beyond its pool.
bool read_places(const Call& call, const Job& job, int64_t n, const Pools& pools, Place* places);

}  // namespace tw::kv_residual
