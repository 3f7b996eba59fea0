// The processor level, threads and ceilings of libtilewright_host, bound by name when first called.
#include <pybind11/stl.h>

#include <sstream>

#include "errors.hpp"
#include "library.hpp"
#include "module.hpp"

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

// Every library of kernels has a core of its own, so the level is set in all that are open.
void force_level(const std::optional<std::string>& name) {
  open_library(host_library());
  bool done = true;
  for (void* address : find_everywhere("tw_force_level")) {
    done &= reinterpret_cast<int (*)(const char*)>(address)(name ? name->c_str() : nullptr) == 0;
  }
  if (done) return;
  std::string accepted;
  for (const std::string& level : cpu_levels()) accepted += (accepted.empty() ? "" : ", ") + level;
  raise("UsageError", "ISA level '" + *name + "' cannot be had on this CPU; accepted: " + accepted);
}

void set_threads(int n) {
  open_library(host_library());
  for (void* address : find_everywhere("tw_set_threads")) reinterpret_cast<void (*)(int)>(address)(n);
}

double measured(double value, const std::string& what) {
  if (value < 0) raise("UsageError", what);
  return value;
}

double read_gbps(int64_t bytes_per_thread, int threads, double seconds) {
  const auto read = host_symbol<double (*)(int64_t, int, double)>("tw_ceiling_read_gbps");
  return measured(read(bytes_per_thread, threads, seconds),
                  "the read ceiling cannot be measured at this ISA level");
}

double write_gbps(int64_t bytes_per_thread, int threads, double seconds) {
  const auto write = host_symbol<double (*)(int64_t, int, double)>("tw_ceiling_write_gbps");
  return measured(write(bytes_per_thread, threads, seconds),
                  "the write ceiling cannot be measured at this ISA level");
}

double flops(const std::string& kind, int threads, double seconds) {
  const auto run = host_symbol<double (*)(const char*, int, double)>("tw_ceiling_flops");
  return measured(run(kind.c_str(), threads, seconds),
                  "no compute ceiling for '" + kind + "'; accepted: fp32, bf16, fp16, int8");
}

}  // namespace

void add_host(py::module_& module) {
  using NoGil = py::call_guard<py::gil_scoped_release>;
  module.def("host_library", &host_library, "Path of libtilewright_host.so.");
  module.def("cpu_level", &cpu_level,
             "Level the host kernels use; raises Unavailable when TILEWRIGHT_ISA is refused.");
  module.def("cpu_levels", &cpu_levels, "Levels this CPU can run, worst first.");
  module.def(
      "force_level", &force_level, py::arg("name"),
      "Force a level for the whole process (None: automatic); raises UsageError for one that cannot be had.");
  module.def("set_threads", &set_threads, py::arg("n"),
             "Threads of calls that ask for none in particular; 0 or less: the CPUs this process may use.");
  module.def("ceiling_read_gbps", &read_gbps, py::arg("bytes_per_thread"), py::arg("threads") = 0,
             py::arg("seconds") = 0.1, NoGil(),
             "Read bandwidth in GB/s over private ranges of that many bytes.");
  module.def("ceiling_write_gbps", &write_gbps, py::arg("bytes_per_thread"), py::arg("threads") = 0,
             py::arg("seconds") = 0.1, NoGil(),
             "Write bandwidth in GB/s over private ranges of that many bytes.");
  module.def(
      "ceiling_flops", &flops, py::arg("kind"), py::arg("threads") = 0, py::arg("seconds") = 0.1, NoGil(),
      "1e9 operations a second that the level's multiply-adds reach; kind is fp32, bf16, fp16 or int8.");
  module.def("get_threads", [] { return host_symbol<int (*)()>("tw_get_threads")(); });
}

}  // namespace tw::bindings
