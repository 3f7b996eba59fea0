// libascendcl, opened at run time: one pointer per function that the launcher calls, typed by the ACL
// headers.
#pragma once

#include <dlfcn.h>

#include <cstdlib>
#include <string>

#include "acl/acl_rt.h"
#include "launcher.hpp"

namespace tilewright::npu {

class Acl {
 public:
  static const Acl& Get() {
    static const Acl library;  // a failed opening throws and is tried again by the next launch
    return library;
  }

#define TW_NPU_ACL_FUNCTIONS(X)          \
  X(aclrtGetDeviceCount)                 \
  X(aclrtGetDevice)                      \
  X(aclrtSetDevice)                      \
  X(aclrtGetSocName)                     \
  X(aclGetRecentErrMsg)                  \
  X(aclrtBinaryLoadFromFile)             \
  X(aclrtBinaryLoadFromData)             \
  X(aclrtBinaryUnLoad)                   \
  X(aclrtBinaryGetFunction)              \
  X(aclrtKernelArgsInit)                 \
  X(aclrtKernelArgsAppend)               \
  X(aclrtKernelArgsAppendPlaceHolder)    \
  X(aclrtKernelArgsGetPlaceHolderBuffer) \
  X(aclrtKernelArgsFinalize)             \
  X(aclrtLaunchKernelWithConfig)         \
  X(aclrtMalloc)                         \
  X(aclrtFree)                           \
  X(aclrtSynchronizeStream)
#define TW_NPU_MEMBER(name) decltype(&::name) name = nullptr;
  TW_NPU_ACL_FUNCTIONS(TW_NPU_MEMBER)
#undef TW_NPU_MEMBER

  // Throws with ACL's own message, if it has one.
  void Check(aclError code, const std::string& what, Failure failure = Failure::kAclError) const {
    if (code == ACL_SUCCESS) return;
    const char* message = aclGetRecentErrMsg();
    throw NpuError(failure, what + " failed with ACL error " + std::to_string(code) +
                                (message != nullptr && *message != '\0' ? ": " + std::string(message) : ""));
  }

 private:
  Acl() {
    const char* named = std::getenv("TILEWRIGHT_LIBASCENDCL");
    std::string why;
    if (named != nullptr && *named != '\0') {
      Open(named, why);
    } else if (!Open("libascendcl.so", why)) {
      Open("libacl_rt.so", why);  // where CANN 9 keeps the runtime half
    }
    if (handle_ == nullptr) {
      throw NpuError(
          Failure::kNoDriver,
          "no ACL library: " + why + " (source CANN's set_env.sh, or name one with TILEWRIGHT_LIBASCENDCL)");
    }
#define TW_NPU_BIND(name) Bind(name, #name);
    TW_NPU_ACL_FUNCTIONS(TW_NPU_BIND)
#undef TW_NPU_BIND
  }

  bool Open(const char* file, std::string& why) {
    handle_ = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (handle_ == nullptr && why.empty()) {
      const char* reason = dlerror();
      why = reason != nullptr ? reason : file;
    }
    path_ = file;
    return handle_ != nullptr;
  }

  template <typename Function>
  void Bind(Function& function, const char* symbol) {
    function = reinterpret_cast<Function>(dlsym(handle_, symbol));
    if (function != nullptr) return;
    const std::string sentence = "ACL library " + path_ + " is too old: it has no " + symbol;
    dlclose(handle_);
    throw NpuError(Failure::kNoDriver, sentence);
  }

  std::string path_;
  void* handle_ = nullptr;
};

}  // namespace tilewright::npu
