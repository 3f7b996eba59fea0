// The C entries of the NPU launcher: an AscendC kernel on an ACL stream, such as one of torch_npu. Not run on
// hardware.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TW_NPU_ABI_VERSION 1

typedef enum tw_npu_core {
  TW_NPU_CUBE = 0,    // an AIC kernel
  TW_NPU_VECTOR = 1,  // an AIV kernel
  TW_NPU_MIX = 2,     // both, one AIC with its AIVs
} tw_npu_core;

typedef enum tw_npu_flags {
  // All blocks must be on the device at once (kernels that synchronise all cores).
  TW_NPU_RESIDENT_BLOCKS = 1,
} tw_npu_flags;

typedef enum tw_npu_status {
  TW_NPU_OK = 0,
  TW_NPU_REFUSED = 1,  // no driver library, no device, another chip, arguments that cannot be right
  TW_NPU_FAILED = 2,   // it should have run, and could not
} tw_npu_status;

// One launch. The kernel is `extern "C" __global__ __aicore__ void kernel(GM_ADDR buffers..., GM_ADDR
// workspace, GM_ADDR tiling)`; workspace and tiling are null addresses where their size is 0.
typedef struct tw_npu_call {
  uint32_t abi_version;  // TW_NPU_ABI_VERSION
  uint32_t flags;        // of tw_npu_flags
  const char* binary;    // the kernel binary's path; with `image` only a name for messages
  const void* image;     // or its bytes, which must stay until tw_npu_unload
  size_t image_bytes;
  const char* kernel;    // the kernel's name in the binary
  const char* soc;       // what the device's name must begin with, such as "Ascend910B"; null: any
  void* const* buffers;  // device addresses, in the kernel's order; null for an absent one
  const void* tiling;    // host bytes; copied before the call returns
  size_t tiling_bytes;
  void* workspace;  // device memory of workspace_bytes, or null: the launcher's own, one per stream
  size_t workspace_bytes;
  void* stream;  // aclrtStream; for torch_npu: torch.npu.current_stream().npu_stream
  char* error;   // receives one sentence on failure; may be null
  size_t error_size;
  uint32_t buffer_count;
  uint32_t block_dim;
  int32_t core;  // of tw_npu_core
  int32_t device;
} tw_npu_call;

// Queues the kernel on the stream and returns without waiting. A block_dim of 0 launches nothing and is
// TW_NPU_OK.
int tw_npu_launch(const tw_npu_call* call);

// Waits for the stream and gives back the launcher's workspace of it. Call it before a stream is destroyed.
int tw_npu_release(int32_t device, void* stream, char* error, size_t error_size);

// Unloads every binary. No kernel may be running.
int tw_npu_unload(char* error, size_t error_size);

#ifdef __cplusplus
}
#endif
