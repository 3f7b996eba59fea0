// Where torch is about to launch, found without torch's headers: its device, its stream there, its vendor.
#pragma once

#include <cstdint>

#include "_host/abi.h"

namespace tilewright::device {

// Takes torch's current stream on a device for the launches of this thread that follow. Throws UsageError
// where no GPU library of torch is loaded.
void enter(int32_t device);

// Hands a call to the launcher, on the device and stream of the last `enter`, for the driver of the vendor
// that this torch is built for. An OpSpec's kernel.
int start(const tw_call* call, const char* family);

}  // namespace tilewright::device
