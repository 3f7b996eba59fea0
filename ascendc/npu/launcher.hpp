// Launching AscendC kernels through ACL. libascendcl is opened with dlopen at the first launch
// (TILEWRIGHT_LIBASCENDCL names another file); nothing is linked. Compiles against the ACL headers that
// fetch_acl_headers.py unpacks.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "tw_npu.h"

namespace tilewright::npu {

// Why a launch did not happen; decides between TW_NPU_REFUSED and TW_NPU_FAILED.
enum class Failure : uint8_t {
  kNoDriver,
  kNoDevice,
  kUnsupportedDevice,
  kRefusedCall,
  kMissingBinary,
  kBadBinary,
  kMissingKernel,
  kAclError,
};

class NpuError : public std::runtime_error {
 public:
  NpuError(Failure failure, const std::string& sentence) : std::runtime_error(sentence), failure_(failure) {}
  Failure failure() const { return failure_; }

 private:
  Failure failure_;
};

// As tw_npu_launch, tw_npu_release and tw_npu_unload; each throws NpuError.
void Launch(const tw_npu_call& call);
void Release(int32_t device, void* stream);
void Unload();

}  // namespace tilewright::npu
