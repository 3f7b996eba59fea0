// o = softmax(scale q kT) v over paged keys and values on the CPU: argument checks and the choice of the ISA
// level.
#include <new>

#include "_host/call.hpp"
#include "_host/cpu.hpp"
#include "_host/export.hpp"
#include "_host/levels.hpp"
#include "paged_attention/host_plan.hpp"
#include "paged_attention/host_read.hpp"

TW_LEVELS(paged, KernelTable)

namespace tw::paged {

namespace {

int paged_attention(const Call& call) {
  Level level;
  if (!current_level(&level)) return call.refuse("%s", level_error());
  Problem problem{};
  if (!read_problem(call, &problem) || !check_tables(call, problem)) return TW_REFUSED;
  try {
    run(problem, kernels_of(level));
  } catch (const std::bad_alloc&) {
    return call.fail("no memory for the partial results of %lld queries", static_cast<long long>(problem.tq));
  }
  return TW_OK;
}

}  // namespace
}  // namespace tw::paged

TW_EXPORT int tw_host_paged_attention(const tw_call* call) {
  return tw::paged::paged_attention(tw::Call(*call));
}
