// The C interface between a compiled kernel and whatever calls it (pybind11, torch ops, ctypes, tests).
// Kernels see tensors and named integers; they never see Python, torch or a memory allocator of theirs.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TW_ABI_VERSION 1
#define TW_MAX_DIMS 6

typedef enum tw_dtype {
  TW_FP32 = 0,
  TW_BF16 = 1,
  TW_FP16 = 2,
  TW_INT8 = 3,
  TW_INT32 = 4,
  TW_INT64 = 5,
  TW_UINT8 = 6,
  TW_FP64 = 7,
  TW_INT16 = 8,
} tw_dtype;

// A strided view; strides count elements. An optional tensor that is absent has ndim == -1.
typedef struct tw_tensor {
  const char* name;
  void* data;
  int32_t dtype;
  int32_t ndim;
  int64_t shape[TW_MAX_DIMS];
  int64_t stride[TW_MAX_DIMS];
} tw_tensor;

// A flag (the index of its value in the spec's list of values; of a numeric one, the bits of a double) or a
// field of the config.
typedef struct tw_attr {
  const char* name;
  int64_t value;
} tw_attr;

// One launch. Tensors stand in the order of the spec: inputs, then outputs.
// `threads` <= 0 means all. On failure the kernel writes one sentence to `error`.
typedef struct tw_call {
  const tw_tensor* tensors;
  const tw_attr* attrs;
  char* error;
  size_t error_size;
  int32_t tensor_count;
  int32_t attr_count;
  int32_t threads;
} tw_call;

typedef enum tw_status {
  TW_OK = 0,
  TW_REFUSED = 1,  // this kernel does not do this case; `error` says why
  TW_FAILED = 2,   // it should have, and could not
} tw_status;

// Every host.cpp exports `tw_host_<family>` of this type.
typedef int (*tw_kernel_fn)(const tw_call* call);

#ifdef __cplusplus
}
#endif
