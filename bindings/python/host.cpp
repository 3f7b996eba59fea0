// The processor level, threads and ceilings of libtilewright_host, bound by name when first called.
#include <sstream>

#include "errors.hpp"
#include "library.hpp"
#include "module.hpp"

#include <pybind11/stl.h>

namespace py = pybind11;

namespace tw::bindings {
namespace {

std::vector<std::string> cpu_levels() {
  std::istringstream list(host_symbol<const char* (*)()>("tw_cpu_levels")());
  std::vector<std::string> names;
  for (std::string name; std::getline(list, name, ',');) {
    const size_t first = name.find_first_not_of(' ');
    if (first != std::string::npos) names.push_back(name.substr(first));
  }
  return names;
}

std::string cpu_level() {
  const char* error = host_symbol<const char* (*)()>("tw_cpu_level_error")();
  if (error != nullptr) raise("Unavailable", error);
  return host_symbol<const char* (*)()>("tw_cpu_level")();
}

void force_level(const std::optional<std::string>& name) {
  const auto force = host_symbol<int (*)(const char*)>("tw_force_level");
  if (force(name ? name->c_str() : nullptr) == 0) return;
  std::string accepted;
  for (const std::string& level : cpu_levels()) accepted += (accepted.empty() ? "" : ", ") + level;
  raise("UsageError", "ISA level '" + *name + "' cannot be had on this CPU; accepted: " + accepted);
}

}  // namespace

void add_host(py::module_& module) {
  module.def("host_library", &host_library, "Path of libtilewright_host.so.");
  module.def("cpu_level", &cpu_level, "Level the host kernels use; raises Unavailable when TILEWRIGHT_ISA is refused.");
  module.def("cpu_levels", &cpu_levels, "Levels this CPU can run, worst first.");
  module.def("force_level", &force_level, py::arg("name"),
             "Force a level for the whole process (None: automatic); raises UsageError for one that cannot be had.");
  module.def(
      "set_threads", [](int n) { host_symbol<void (*)(int)>("tw_set_threads")(n); }, py::arg("n"),
      "Threads of calls that ask for none in particular; 0 or less: the CPUs this process may use.");
  module.def("get_threads", [] { return host_symbol<int (*)()>("tw_get_threads")(); });
}

}  // namespace tw::bindings
