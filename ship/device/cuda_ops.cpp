#include "device/cuda_ops.hpp"

#include <algorithm>

namespace tilewright::device {
namespace {

using tw::border::UsageError;
using tw::ops::Tensor;

tw::border::View view_of(const Tensor& tensor) {
  tw::border::View view{true, tw::ops::code_of(tensor.scalar_type()), tensor.data_ptr(), {}, {}};
  for (int64_t axis = 0; axis < tensor.dim(); ++axis) {
    view.shape.push_back(tensor.size(axis));
    view.stride.push_back(tensor.stride(axis));
  }
  return view;
}

int32_t device_of(const tw::border::OpSpec& op, const Arguments& arguments) {
  int32_t device = -1;
  for (const OptionalTensor& input : arguments.inputs) {
    if (!input) continue;
    const int32_t index = input->get_device_index();
    if (!input->is_cuda())
      throw UsageError(std::string(op.name) + ": one input is on the GPU, another is not");
    if (device >= 0 && index != device) {
      throw UsageError(std::string(op.name) + ": inputs are on GPUs " + std::to_string(device) + " and " +
                       std::to_string(index) + "; all must be on one");
    }
    device = index;
  }
  return device;
}

// Any input that is there: where outputs are made. Each op has one that it does not work without.
const Tensor& some_input(const Arguments& arguments) {
  return **std::ranges::find_if(arguments.inputs,
                                [](const OptionalTensor& input) { return input.has_value(); });
}

}  // namespace

std::vector<Tensor> launch(const tw::border::OpSpec& op, const Arguments& arguments) {
  tw::border::Request request;
  size_t input = 0;
  for (const tw::border::TensorSpec& tensor : op.tensors) {
    request.tensors.emplace_back();
    if (tensor.output) continue;
    const OptionalTensor& given = arguments.inputs[input++];
    if (given) request.tensors.back() = view_of(*given);
  }
  request.flags = arguments.flags;
  request.numbers = arguments.numbers;
  request.given_sizes = arguments.sizes;
  if (arguments.out_dtype) request.out_dtype = tw::ops::code_of(*arguments.out_dtype);
  const tw::border::Launch resolved = tw::border::resolve(op, request);

  enter(device_of(op, arguments));
  std::vector<Tensor> outputs;
  for (size_t i = 0; i < op.tensors.size(); ++i) {
    if (!op.tensors[i].output) continue;
    const bool present = resolved.present(op, i);
    const std::vector<int64_t> shape = present ? resolved.shape(op, i) : std::vector<int64_t>{0};
    outputs.push_back(torch::stable::new_empty(
        some_input(arguments), torch::headeronly::IntHeaderOnlyArrayRef(shape.data(), shape.size()),
        tw::ops::kScalarTypes[resolved.precision->dtypes[i]]));
    if (present) request.tensors[i] = view_of(outputs.back());
  }
  tw::border::run(op, resolved, request);
  return outputs;
}

}  // namespace tilewright::device
