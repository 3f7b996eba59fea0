// Reads calls from standard input, writes what the border of generated C++ would use for each: the places of
// all candidates among the tuned in the order they are tried, then the config that a kernel ends up with
// which refuses tile_m above the call's limit. A call is: precision, number of flags, flags, level, limit,
// sizes.
#include <iostream>

#include "border.hpp"

#ifndef TW_OP
#define TW_OP gemm_op
#endif

static int64_t limit;
static std::vector<int64_t> used;

static int picky_kernel(const tw_call* call) {
  used.clear();
  bool refused = false;
  for (int32_t i = 0; i < call->attr_count; ++i) {
    used.push_back(call->attrs[i].value);
    refused |= std::string_view(call->attrs[i].name) == "tile_m" && used.back() > limit;
  }
  return refused ? TW_REFUSED : TW_OK;
}

namespace tw::border {
#include "tables.inc"
}

// -1 for a row of another table.
static std::ptrdiff_t place(std::span<const tw::border::Tuned> table, const tw::border::Tuned* row) {
  for (size_t i = 0; i < table.size(); ++i)
    if (&table[i] == row) return static_cast<std::ptrdiff_t>(i);
  return -1;
}

int main() {
  using namespace tw::border;
  const OpSpec& op = TW_OP::spec;
  int precision;
  size_t flags;
  std::string level;
  while (std::cin >> precision >> flags) {
    Launch launch;
    launch.precision = &op.precisions[static_cast<size_t>(precision)];
    launch.flags.resize(flags);
    for (int64_t& flag : launch.flags) std::cin >> flag;
    std::cin >> level >> limit;
    launch.sizes.resize(static_cast<size_t>(op.case_sizes));
    for (int64_t& size : launch.sizes) std::cin >> size;
    launch.candidates = candidates(op, launch, level);
    for (const Tuned* row : launch.candidates) std::cout << place(op.tuned, row) << ' ';
    for (const ConfigField& field : op.config) launch.config.push_back(field.fallback);
    if (!launch.candidates.empty())
      launch.config.assign(launch.candidates[0]->config.begin(), launch.candidates[0]->config.end());
    Request request;
    request.tensors.resize(op.tensors.size());
    std::string refusal = "ran";
    try {
      run(op, launch, request);
    } catch (const KernelError&) {
      refusal = "refused";
    }
    std::cout << ": " << refusal;
    for (size_t i = op.flags.size(); i < used.size(); ++i) std::cout << ' ' << used[i];
    std::cout << '\n';
  }
}
