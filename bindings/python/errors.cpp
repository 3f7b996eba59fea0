#include "errors.hpp"

#include <pybind11/pybind11.h>

namespace tw::bindings {

void raise(const char* kind, const std::string& message) {
  const pybind11::gil_scoped_acquire gil;
  const pybind11::object type = pybind11::module_::import("tilewright.errors").attr(kind);
  PyErr_SetString(type.ptr(), message.c_str());
  throw pybind11::error_already_set();
}

}  // namespace tw::bindings
