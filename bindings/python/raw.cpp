#include "raw.hpp"

#include <pybind11/stl.h>

#include "errors.hpp"
#include "library.hpp"

namespace py = pybind11;

namespace tw::bindings {
namespace {

int32_t code_of_format(const std::string& format, const std::string& name) {
  if (format == "f") return TW_FP32;
  if (format == "e") return TW_FP16;
  if (format == "d") return TW_FP64;
  if (format == "b") return TW_INT8;
  if (format == "B") return TW_UINT8;
  if (format == "h") return TW_INT16;
  if (format == "i") return TW_INT32;
  if (format == "l" || format == "q") return TW_INT64;
  raise("UsageError", name + " is a buffer of format '" + format + "'; accepted: f, e, d, b, B, h, i, l, q");
}

border::View of_buffer(const py::buffer_info& info, const std::string& name) {
  border::View view{true, code_of_format(info.format, name), info.ptr, {}, {}};
  view.shape.assign(info.shape.begin(), info.shape.end());
  for (const py::ssize_t stride : info.strides) {
    if (stride % info.itemsize != 0)
      raise("UsageError", name + " has a stride that is no multiple of its element");
    view.stride.push_back(stride / info.itemsize);
  }
  return view;
}

border::View view_of(const py::object& value, const char* name, bool output) {
  if (value.is_none()) return {};
  if (py::isinstance<py::tuple>(value)) {
    using Address = std::tuple<uintptr_t, int32_t, std::vector<int64_t>, std::vector<int64_t>>;
    auto [address, code, shape, stride] = value.cast<Address>();
    if (shape.size() != stride.size())
      raise("UsageError", std::string(name) + " needs as many strides as sizes");
    return {true, code, reinterpret_cast<void*>(address), std::move(shape), std::move(stride)};
  }
  if (py::hasattr(value, "data_ptr")) {
    const py::object code = py::module_::import("tilewright.dtypes").attr("from_torch")(value.attr("dtype"));
    return {true, code.attr("code").cast<int32_t>(),
            reinterpret_cast<void*>(value.attr("data_ptr")().cast<uintptr_t>()),
            value.attr("shape").cast<std::vector<int64_t>>(),
            value.attr("stride")().cast<std::vector<int64_t>>()};
  }
  if (!py::isinstance<py::buffer>(value)) {
    raise("UsageError", std::string(name) + " is a " +
                            py::str(py::type::of(value).attr("__name__")).cast<std::string>() +
                            "; accepted: a buffer, a torch tensor, or (address, dtype code, shape, strides)");
  }
  return of_buffer(value.cast<py::buffer>().request(output), name);
}

}  // namespace

border::OpSpec with_kernel(border::OpSpec op) {
  op.kernel = host_symbol<tw_kernel_fn>((std::string("tw_host_") + op.name).c_str());
  return op;
}

void call_raw(const border::OpSpec& op, const std::vector<py::object>& tensors,
              const std::vector<std::string>& flags, const std::vector<double>& numbers,
              const std::optional<std::vector<int64_t>>& config, int threads) {
  border::Request request;
  for (size_t i = 0; i < tensors.size(); ++i) {
    request.tensors.push_back(view_of(tensors[i], op.tensors[i].name, op.tensors[i].output));
  }
  request.flags = flags;
  request.numbers = numbers;
  request.given_sizes.assign(static_cast<size_t>(op.case_sizes), -1);
  request.has_config = config.has_value();
  if (config) request.config = *config;
  request.threads = threads;
  request.level = host_symbol<const char* (*)()>("tw_cpu_level")();
  try {
    const border::Launch launch = border::resolve(op, request);
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (op.tensors[i].output && launch.present(op, i) && !request.tensors[i].present) {
        raise("UsageError", std::string(op.name) + ": the output " + op.tensors[i].name + " is missing");
      }
    }
    const py::gil_scoped_release no_gil;
    border::run(op, launch, request);
  } catch (const border::UsageError& error) {
    raise("UsageError", error.what());
  } catch (const border::KernelError& error) {
    raise(error.status == TW_REFUSED ? "Refused" : "TilewrightError", error.what());
  }
}

}  // namespace tw::bindings
