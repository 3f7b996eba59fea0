// What the generated raw-kernel functions stand on: Python objects to views, checks, launch.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>
#include <string>
#include <vector>

#include "border.hpp"

namespace tw::bindings {

// The op with its kernel from libtilewright_host.
border::OpSpec with_kernel(border::OpSpec op);

// Checks and runs; tensors in the order of the spec, outputs included. Raises UsageError, Refused or
// TilewrightError.
void call_raw(const border::OpSpec& op, const std::vector<pybind11::object>& tensors,
              const std::vector<std::string>& flags, const std::vector<double>& numbers,
              const std::optional<std::vector<int64_t>>& config, int threads);

}  // namespace tw::bindings
