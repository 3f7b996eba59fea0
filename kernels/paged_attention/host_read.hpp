// From a call to a checked problem: shapes, types and strides here, everything in the tables in
// host_tables.cpp.
#pragma once

#include "_host/call.hpp"
#include "paged_attention/host_problem.hpp"

namespace tw::paged {

// False after a refusal.
bool read_problem(const Call& call, Problem* p);

// Refuses lengths, queries, pages, masks and ranks that lead outside a tensor. Nothing but these is read.
bool check_tables(const Call& call, const Problem& p);

}  // namespace tw::paged
