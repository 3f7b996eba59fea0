// tilewright._C: raw kernels, timers and twin runs for the workbench; golden.py beside it makes and checks
// vectors of the raw kernels. Shipped ops do not use it.
#include "module.hpp"

#include <pybind11/stl.h>

#include "burst.hpp"
#include "flush.hpp"
#include "library.hpp"
#include "plan.hpp"
#include "prepared.hpp"
#include "timing.hpp"

namespace py = pybind11;
using namespace tw::bindings;

PYBIND11_MODULE(_C, module) {
  module.doc() = "Raw kernels, timers and twin runs; addresses in, numbers out.";
  module.attr("abi_version") = TW_ABI_VERSION;

  using NoGil = py::call_guard<py::gil_scoped_release>;
  py::class_<Prepared, std::shared_ptr<Prepared>>(module, "Prepared", "A kernel call with everything bound.")
      .def("run", &Prepared::run, NoGil(),
           "Call the kernel; raises Refused or TilewrightError with its sentence.")
      .def("burst", &burst, py::arg("stores"), NoGil(),
           "A call for each list of (address, value, bytes), after these were stored; the ns of each call.")
      .def("time", &time_calls, py::arg("count"), py::arg("flush_bytes") = 0, py::arg("batch") = 1, NoGil(),
           "`count` samples in ns, each of `batch` consecutive calls (not divided); with `flush_bytes`, "
           "flush_caches before each sample.")
      .def("time_and_waits", &time_and_waits, py::arg("count"), py::arg("flush_bytes") = 0,
           py::arg("batch") = 1, NoGil(),
           "As `time`, and a second list of what the calling thread waited during each sample while it was "
           "ready to run; empty where the system does not tell.")
      .def("time_pair", &time_pair, py::arg("other"), py::arg("blocks"), py::arg("flush_bytes") = 0,
           py::arg("batch") = 1, NoGil(),
           "Two lists of samples in ns, taken in blocks of the order self, other, other, self.");

  py::class_<Plan>(module, "Plan", "Prepared calls, replayed with no Python in between.")
      .def(py::init<std::vector<std::shared_ptr<Prepared>>>(), py::arg("calls"))
      .def("__len__", &Plan::size)
      .def("run", &Plan::run, NoGil(), "Every call in order; raises what the first that fails raises.")
      .def("profile", &Plan::profile, NoGil(), "As `run`; the ns of each call.");

  module.def(
      "flush_caches", &flush_caches, py::arg("bytes"), NoGil(),
      "Rewrite that many bytes of other memory, a share on every CPU this process may use, which evicts "
      "its caches; returns the CPUs.");
  module.def("core_mhz", &core_mhz, NoGil(),
             "Clock of the core this runs on in MHz, from a chain of dependent multiplications.");
  module.def(
      "prepare",
      [](uintptr_t address, const std::vector<TensorView>& tensors,
         const std::map<std::string, int64_t>& attrs,
         int threads) { return std::make_shared<Prepared>(address, tensors, attrs, threads); },
      py::arg("address"), py::arg("tensors"), py::arg("attrs"), py::arg("threads") = 0,
      "Bind a call of the kernel at `address`; tensors are (name, address, dtype code, shape, strides in "
      "elements), "
      "shape (-1,) marks an absent one. The memory must outlive the result.");
  module.def(
      "load_library", [](const std::string& path) { return reinterpret_cast<uintptr_t>(open_library(path)); },
      py::arg("path"), "Open a shared library once; its handle.");
  module.def(
      "symbol",
      [](const std::string& path, const std::string& name) {
        return reinterpret_cast<uintptr_t>(find_symbol(path, name));
      },
      py::arg("path"), py::arg("name"),
      "Address of an exported symbol; raises TilewrightError when there is none.");

  add_host(module);
  add_twin(module);
  add_pages(module);
  add_weights(module);
  py::module_ ops =
      module.def_submodule("ops", "One raw-kernel function a family, generated from the specs.");
  add_ops(ops);
}
