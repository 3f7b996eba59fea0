// Kernels launched by address: from kernel<<<...>>>(...) in host code, or through a thunk made for them.
#pragma once

#include "twin.h"

namespace tilewright::twin {

struct KernelCall {
  void (*call)(void*);
  void* context;
};

// tw_twin_run, with the kernel given as a call instead of a name where `given` is not null.
int RunLaunch(const tw_twin_launch& launch, const KernelCall* given);

}  // namespace tilewright::twin
