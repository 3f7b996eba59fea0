// What the generated stable-ABI ops stand on: torch tensors to views, outputs, launch.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <string>
#include <vector>

#include "_host/cpu.hpp"
#include "border.hpp"

namespace tw::ops {

using border::Launch;
using border::OpSpec;
using border::Request;
using border::View;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr ScalarType kScalarTypes[] = {ScalarType::Float, ScalarType::BFloat16, ScalarType::Half,
                                       ScalarType::Char,  ScalarType::Int,      ScalarType::Long,
                                       ScalarType::Byte,  ScalarType::Double,   ScalarType::Short};
constexpr int32_t kScalarTypeCount = sizeof kScalarTypes / sizeof *kScalarTypes;

// The dtype code of kernels/_host/abi.h; a code that names nothing where kernels do not know the type.
inline int32_t code_of(ScalarType type) {
  for (int32_t code = 0; code < kScalarTypeCount; ++code) {
    if (kScalarTypes[code] == type) return code;
  }
  return kScalarTypeCount;
}

inline View view(const Tensor& tensor) {
  if (!tensor.is_cpu()) throw border::UsageError("a tensor is not on the CPU; accepted: all tensors on cpu");
  View view{true, code_of(tensor.scalar_type()), nullptr, {}, {}};
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    view.shape.push_back(tensor.size(d));
    view.stride.push_back(tensor.stride(d));
  }
  view.data = tensor.data_ptr();
  return view;
}

inline View view(const std::optional<Tensor>& tensor) { return tensor ? view(*tensor) : View{}; }

// Checks, makes the outputs and runs. An output that the flags leave out is an empty tensor.
inline std::vector<Tensor> launch(const OpSpec& op, Request& request, const Tensor& like) {
  request.level = tw_cpu_level();
  const Launch launch = border::resolve(op, request);
  std::vector<Tensor> outputs;
  for (size_t i = 0; i < op.tensors.size(); ++i) {
    if (!op.tensors[i].output) continue;
    const bool present = launch.present(op, i);
    const std::vector<int64_t> shape = present ? launch.shape(op, i) : std::vector<int64_t>{0};
    const ScalarType type = kScalarTypes[launch.precision->dtypes[i]];
    outputs.push_back(torch::stable::new_empty(
        like, torch::headeronly::IntHeaderOnlyArrayRef(shape.data(), shape.size()), type));
    if (present) request.tensors[i] = view(outputs.back());
  }
  border::run(op, launch, request);
  return outputs;
}

}  // namespace tw::ops
