// Keeps a kernel's own crash (division by zero, wild pointer) from taking the process down.
#pragma once

namespace tilewright::twin {

// While one lives, faults inside Guarded::Run of this process come back as return values.
class FaultGuard {
 public:
  FaultGuard();
  ~FaultGuard();
  FaultGuard(const FaultGuard&) = delete;
  FaultGuard& operator=(const FaultGuard&) = delete;
};

// Calls body(context) on this thread. 0: it returned; else the signal that ended it. Frames it left are not
// unwound.
int RunGuarded(void (*body)(void*), void* context);

const char* FaultName(int signal);

// Where a fault of this thread escapes to; the previous place. Contexts that are switched keep their own.
void* SwapEscape(void* escape);

}  // namespace tilewright::twin
