// What the CUDA implementations of ops share: torch's stable ABI on one side, the GPU launcher on the other.
// torch names ROCm devices "cuda" too, so these serve both.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "device/place.hpp"
#include "op.hpp"

namespace tilewright::device {

using OptionalTensor = std::optional<tw::ops::Tensor>;
using OptionalDtype = std::optional<tw::ops::ScalarType>;

// Inputs in the order of the spec; texts of layout and choice flags; numeric flags; sizes that were given,
// else -1.
struct Arguments {
  std::vector<OptionalTensor> inputs;
  std::vector<std::string> flags;
  std::vector<double> numbers;
  std::vector<int64_t> sizes;
  OptionalDtype out_dtype;
};

// Checks the call, allocates the outputs on the inputs' device and starts the kernel on torch's current
// stream there.
std::vector<tw::ops::Tensor> launch(const tw::border::OpSpec& op, const Arguments& arguments);

}  // namespace tilewright::device
