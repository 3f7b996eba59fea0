// The rules of open pages: which rows of k_open a call may name.
#pragma once

#include "_kv/host_slots.hpp"
#include "kv_write/host_kernels.hpp"

namespace tw::kv_write {

// Refuses unless tokens of each page are neighbours with one row of k_open, in [0, rows), and no row serves
// two pages: one that closes with keys out of it or stays open in it, each.
bool check_open_rows(const Call& call, const kv::SlotPlan& plan, const tw_tensor& open_row, int64_t rows);

}  // namespace tw::kv_write
