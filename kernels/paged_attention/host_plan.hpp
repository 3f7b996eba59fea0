// A problem cut into tasks, and the execution of them.
#pragma once

#include "paged_attention/host_problem.hpp"

namespace tw::paged {

// Throws std::bad_alloc when there is no memory for the plan or the partial results.
void run(const Problem& problem, const KernelTable& kernels);

}  // namespace tw::paged
