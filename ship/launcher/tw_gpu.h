// The C entries of a bundle's GPU launcher. `call` is the call of kernels/_host/abi.h with device pointers.
#pragma once

#include "_host/abi.h"

#ifdef __cplusplus
extern "C" {
#endif

// Starts the kernel of `family` for `call` on `stream` (CUstream / hipStream_t; null: the default stream)
// of `device` and returns without waiting. `entry`: an id of dispatch.json, or null, "auto", "cuda", "hip".
// TW_OK; TW_REFUSED: no driver, no device, no binary for this device or call; TW_FAILED: it should have run.
// On failure one sentence stands in call->error. An empty grid launches nothing and is TW_OK.
int tw_gpu_launch(const tw_call* call, void* stream, int32_t device, const char* family, const char* entry);

// Writes the id of the entry that tw_gpu_launch would run to `id`; same status and sentence, starts nothing.
int tw_gpu_choose(const tw_call* call, int32_t device, const char* family, const char* entry, char* id,
                  size_t id_size);

// Writes what a device of `api` ("cuda" or "hip") is to its driver, such as "cuda:sm_90", to `text`; where
// the status is not TW_OK, the sentence why not.
int tw_gpu_device(const char* api, int32_t device, char* text, size_t text_size);

// Folder that `binary` paths are relative to; null: the folder of this shared library. Set it before the
// first launch of an entry: a loaded binary stays.
void tw_gpu_set_directory(const char* path);

// Number of entries, and the id of the index-th (null past the end).
int32_t tw_gpu_entry_count(void);
const char* tw_gpu_entry_id(int32_t index);

#ifdef __cplusplus
}
#endif
