#include "library.hpp"

#include <dlfcn.h>

#include <map>
#include <mutex>

#include "errors.hpp"

namespace tw::bindings {

namespace {

std::mutex mutex;

std::map<std::string, void*>& libraries() {
  static std::map<std::string, void*> opened;
  return opened;
}

}  // namespace

void* open_library(const std::string& path, bool global) {
  const std::lock_guard<std::mutex> lock(mutex);
  std::map<std::string, void*>& opened = libraries();
  const auto found = opened.find(path);
  if (found != opened.end()) return found->second;
  void* handle = dlopen(path.c_str(), RTLD_NOW | (global ? RTLD_GLOBAL : RTLD_LOCAL));
  if (handle == nullptr) raise("Unavailable", std::string("cannot load a native library: ") + dlerror());
  return opened[path] = handle;
}

void* find_symbol(const std::string& path, const std::string& name) {
  void* address = dlsym(open_library(path), name.c_str());
  if (address == nullptr) raise("TilewrightError", path + " does not export " + name);
  return address;
}

std::vector<void*> find_everywhere(const std::string& name) {
  const std::lock_guard<std::mutex> lock(mutex);
  std::vector<void*> found;
  for (const auto& [path, handle] : libraries()) {
    if (void* address = dlsym(handle, name.c_str())) found.push_back(address);
  }
  return found;
}

std::string module_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(&open_library), &info) == 0 || info.dli_fname == nullptr) return ".";
  const std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

std::string host_library() { return module_folder() + "/libtilewright_host.so"; }

std::string twin_library() { return module_folder() + "/libtilewright_twin.so"; }

}  // namespace tw::bindings
