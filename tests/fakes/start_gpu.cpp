// What the ops of a bundle do around a launch, with the signature of tw_gpu_launch: torch's stream, not the
// given one.
#include <cstdio>
#include <exception>

#include "device/place.hpp"

extern "C" __attribute__((visibility("default"))) int tw_test_start(const tw_call* call, void*,
                                                                    int32_t device, const char* family,
                                                                    const char*) {
  try {
    tilewright::device::enter(device);
    return tilewright::device::start(call, family);
  } catch (const std::exception& error) {
    std::snprintf(call->error, call->error_size, "%s", error.what());
    return -1;
  }
}
