// What host code beside kernels needs of AscendCL (acl/acl.h of the documentation) on the twin: one device,
// whose memory is the host's, and streams on which everything is done at once. Original code.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

extern "C" {
void* twi_device_alloc(uint64_t bytes);
void twi_device_free(void* memory);
}

using aclError = int;
using aclrtStream = void*;
using aclrtContext = void*;
using aclrtEvent = void*;
using aclFloat16 = uint16_t;

constexpr aclError ACL_SUCCESS = 0;
constexpr aclError ACL_ERROR_NONE = 0;
constexpr aclError ACL_ERROR_INVALID_PARAM = 100000;
constexpr aclError ACL_ERROR_BAD_ALLOC = 200000;

enum aclrtMemMallocPolicy {
  ACL_MEM_MALLOC_HUGE_FIRST,
  ACL_MEM_MALLOC_HUGE_ONLY,
  ACL_MEM_MALLOC_NORMAL_ONLY,
  ACL_MEM_MALLOC_HUGE_FIRST_P2P,
  ACL_MEM_MALLOC_HUGE_ONLY_P2P,
  ACL_MEM_MALLOC_NORMAL_ONLY_P2P,
};
enum aclrtMemcpyKind {
  ACL_MEMCPY_HOST_TO_HOST,
  ACL_MEMCPY_HOST_TO_DEVICE,
  ACL_MEMCPY_DEVICE_TO_HOST,
  ACL_MEMCPY_DEVICE_TO_DEVICE,
};
enum aclrtRunMode { ACL_DEVICE, ACL_HOST };

namespace tilewright::twin {

// Handles are compared with null and given back, nothing more.
inline aclError GiveHandle(void** handle) {
  static int any = 0;
  if (handle == nullptr) return ACL_ERROR_INVALID_PARAM;
  *handle = &any;
  return ACL_SUCCESS;
}

}  // namespace tilewright::twin

inline aclError aclInit(const char*) { return ACL_SUCCESS; }
inline aclError aclFinalize() { return ACL_SUCCESS; }
inline const char* aclGetRecentErrMsg() { return ""; }
inline aclError aclrtSetDevice(int32_t) { return ACL_SUCCESS; }
inline aclError aclrtResetDevice(int32_t) { return ACL_SUCCESS; }
inline aclError aclrtGetDevice(int32_t* device) { return *device = 0, ACL_SUCCESS; }
inline aclError aclrtGetDeviceCount(uint32_t* count) { return *count = 1, ACL_SUCCESS; }
inline aclError aclrtGetRunMode(aclrtRunMode* mode) { return *mode = ACL_HOST, ACL_SUCCESS; }
inline const char* aclrtGetSocName() { return "Ascend910B1"; }
inline aclError aclrtGetLastError(int) { return ACL_SUCCESS; }

inline aclError aclrtCreateContext(aclrtContext* context, int32_t) {
  return tilewright::twin::GiveHandle(context);
}
inline aclError aclrtSetCurrentContext(aclrtContext) { return ACL_SUCCESS; }
inline aclError aclrtDestroyContext(aclrtContext) { return ACL_SUCCESS; }
inline aclError aclrtCreateStream(aclrtStream* stream) { return tilewright::twin::GiveHandle(stream); }
inline aclError aclrtDestroyStream(aclrtStream) { return ACL_SUCCESS; }
inline aclError aclrtSynchronizeStream(aclrtStream) { return ACL_SUCCESS; }
inline aclError aclrtSynchronizeStreamWithTimeout(aclrtStream, int32_t) { return ACL_SUCCESS; }
inline aclError aclrtSynchronizeDevice() { return ACL_SUCCESS; }
inline aclError aclrtCreateEvent(aclrtEvent* event) { return tilewright::twin::GiveHandle(event); }
inline aclError aclrtRecordEvent(aclrtEvent, aclrtStream) { return ACL_SUCCESS; }
inline aclError aclrtSynchronizeEvent(aclrtEvent) { return ACL_SUCCESS; }
inline aclError aclrtStreamWaitEvent(aclrtStream, aclrtEvent) { return ACL_SUCCESS; }
inline aclError aclrtDestroyEvent(aclrtEvent) { return ACL_SUCCESS; }

inline aclError aclrtMalloc(void** memory, size_t bytes, aclrtMemMallocPolicy) {
  if (memory == nullptr || bytes == 0) return ACL_ERROR_INVALID_PARAM;
  *memory = twi_device_alloc(bytes);
  return *memory != nullptr ? ACL_SUCCESS : ACL_ERROR_BAD_ALLOC;
}
inline aclError aclrtFree(void* memory) {
  twi_device_free(memory);
  return ACL_SUCCESS;
}
inline aclError aclrtMallocHost(void** memory, size_t bytes) {
  if (memory == nullptr || bytes == 0) return ACL_ERROR_INVALID_PARAM;
  *memory = std::malloc(bytes);
  return *memory != nullptr ? ACL_SUCCESS : ACL_ERROR_BAD_ALLOC;
}
inline aclError aclrtFreeHost(void* memory) {
  std::free(memory);
  return ACL_SUCCESS;
}
inline aclError aclrtMemcpy(void* to, size_t room, const void* from, size_t bytes, aclrtMemcpyKind) {
  if (bytes > room || to == nullptr || from == nullptr) return ACL_ERROR_INVALID_PARAM;
  std::memcpy(to, from, bytes);
  return ACL_SUCCESS;
}
inline aclError aclrtMemcpyAsync(void* to, size_t room, const void* from, size_t bytes, aclrtMemcpyKind kind,
                                 aclrtStream) {
  return aclrtMemcpy(to, room, from, bytes, kind);
}
inline aclError aclrtMemset(void* to, size_t room, int32_t value, size_t bytes) {
  if (bytes > room || to == nullptr) return ACL_ERROR_INVALID_PARAM;
  std::memset(to, value, bytes);
  return ACL_SUCCESS;
}
inline aclError aclrtMemsetAsync(void* to, size_t room, int32_t value, size_t bytes, aclrtStream) {
  return aclrtMemset(to, room, value, bytes);
}
