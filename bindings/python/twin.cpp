// Runs of AscendC kernels on the twin, through ascendc/twin/twin.h.
#include "twin/twin.h"

#include <pybind11/stl.h>

#include <cstring>
#include <memory>

#include "errors.hpp"
#include "library.hpp"
#include "module.hpp"

namespace py = pybind11;

namespace tw::bindings {
namespace {

template <class Function>
Function twin_symbol(const char* name) {
  open_library(twin_library(), true);
  return reinterpret_cast<Function>(find_symbol(twin_library(), name));
}

// ("name", "buffer", address, bytes), ("name", "scalar", integer) or ("name", "float", number).
tw_twin_arg to_arg(const py::tuple& given, std::vector<std::string>& names) {
  tw_twin_arg arg{};
  names.push_back(given[0].cast<std::string>());
  arg.name = names.back().c_str();
  const auto kind = given[1].cast<std::string>();
  if (kind == "buffer" && given.size() == 4) {
    arg.kind = TW_TWIN_BUFFER;
    arg.data = reinterpret_cast<void*>(given[2].cast<uintptr_t>());
    arg.bytes = given[3].cast<uint64_t>();
  } else if (kind == "scalar" && given.size() == 3) {
    arg.kind = TW_TWIN_SCALAR;
    arg.value = static_cast<uint64_t>(given[2].cast<int64_t>());
  } else if (kind == "float" && given.size() == 3) {
    arg.kind = TW_TWIN_FLOAT;
    const float value = given[2].cast<float>();
    uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    arg.value = bits;
  } else {
    raise("UsageError", "argument '" + names.back() + "' of kind '" + kind + "' with " +
                            std::to_string(given.size()) +
                            " parts; accepted: (name, 'buffer', address, bytes), (name, 'scalar', integer), "
                            "(name, 'float', number)");
  }
  return arg;
}

py::dict twin_run(const std::string& kernel, const std::string& soc, const std::vector<py::tuple>& given,
                  uint32_t block_dim, const std::string& library, int threads, bool skip_data,
                  uint32_t max_findings, const std::string& trace) {
  std::vector<std::string> names;
  names.reserve(given.size());
  std::vector<tw_twin_arg> args;
  for (const py::tuple& one : given) args.push_back(to_arg(one, names));

  tw_twin_result* raw = nullptr;
  tw_twin_launch launch{};
  launch.abi_version = TW_TWIN_ABI_VERSION;
  launch.flags = skip_data ? uint32_t{TW_TWIN_SKIP_DATA} : 0u;
  launch.library = library.empty() ? nullptr : library.c_str();
  launch.kernel = kernel.c_str();
  launch.soc = soc.c_str();
  launch.args = args.data();
  launch.arg_count = static_cast<uint32_t>(args.size());
  launch.block_dim = block_dim;
  launch.threads = threads;
  launch.max_findings = max_findings;
  launch.trace_path = trace.empty() ? nullptr : trace.c_str();
  launch.result = &raw;

  const auto run = twin_symbol<int (*)(const tw_twin_launch*)>("tw_twin_run");
  const auto error = twin_symbol<const char* (*)()>("tw_twin_error");
  const auto json = twin_symbol<const char* (*)(const tw_twin_result*)>("tw_twin_result_json");
  const auto release = twin_symbol<void (*)(tw_twin_result*)>("tw_twin_result_free");

  int status = 0;
  {
    const py::gil_scoped_release no_gil;
    status = run(&launch);
  }
  const std::unique_ptr<tw_twin_result, void (*)(tw_twin_result*)> result(raw, release);
  if (status == 2) {
    const char* why = error();
    raise("TilewrightError", why != nullptr ? why : "the twin could not run " + kernel);
  }
  py::dict report = py::module_::import("json").attr("loads")(json(result.get()));
  report["ok"] = status == 0;
  return report;
}

py::object soc_parameters(const std::string& soc) {
  const char* json = twin_symbol<const char* (*)(const char*)>("tw_twin_soc_json")(soc.c_str());
  if (json == nullptr) raise("UsageError", "the twin has no parameters for '" + soc + "'");
  return py::module_::import("json").attr("loads")(json);
}

}  // namespace

void add_twin(py::module_& module) {
  module.def("twin_library", &twin_library, "Path of libtilewright_twin.so.");
  module.def(
      "twin_run", &twin_run, py::arg("kernel"), py::arg("soc"), py::arg("args"), py::arg("block_dim"),
      py::kw_only(), py::arg("library") = "", py::arg("threads") = 0, py::arg("skip_data") = false,
      py::arg("max_findings") = 0, py::arg("trace") = "",
      "Run an AscendC kernel on the twin. args are (name, 'buffer', address, bytes), (name, 'scalar', "
      "integer) "
      "or (name, 'float', number) in the kernel's order; library '' means the kernels built with the twin. "
      "Returns the twin's report (findings, counts, peaks, bytes moved) with 'ok'; raises TilewrightError "
      "when "
      "it could not run.");
  module.def("twin_soc", &soc_parameters, py::arg("soc"), "The twin's parameter set of an Ascend chip.");
}

}  // namespace tw::bindings
