// The parts of the module; each file adds its own functions.
#pragma once

#include <pybind11/pybind11.h>

namespace tw::bindings {

void add_host(pybind11::module_& module);
void add_twin(pybind11::module_& module);
void add_pages(pybind11::module_& module);
void add_weights(pybind11::module_& module);

// Generated from the table of ops (bindings/python/generate.py).
void add_ops(pybind11::module_& ops);

}  // namespace tw::bindings
