// Shared libraries opened when first needed and kept for the life of the process.
#pragma once

#include <string>
#include <vector>

namespace tw::bindings {

// Opens `path` once; raises Unavailable with the loader's sentence when it cannot. `global` lets libraries
// opened later bind to its symbols.
void* open_library(const std::string& path, bool global = false);

// Address of `name` in the library at `path`; raises TilewrightError when it is not exported.
void* find_symbol(const std::string& path, const std::string& name);

// Addresses of `name` in every library opened so far that exports it.
std::vector<void*> find_everywhere(const std::string& name);

// The folder this module was loaded from; the native libraries lie beside it.
std::string module_folder();

std::string host_library();
std::string twin_library();

template <class Function>
Function host_symbol(const char* name) {
  return reinterpret_cast<Function>(find_symbol(host_library(), name));
}

}  // namespace tw::bindings
