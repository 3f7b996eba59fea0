#include "guard.h"

#include <setjmp.h>
#include <signal.h>

#include <mutex>

namespace tilewright::twin {

namespace {

constexpr int kSignals[] = {SIGFPE, SIGSEGV, SIGBUS, SIGILL};
constexpr int kCount = sizeof(kSignals) / sizeof(int);

thread_local sigjmp_buf* escape = nullptr;
std::mutex mutex;
int guards = 0;
struct sigaction previous[kCount];

void OnFault(int signal) {
  if (escape != nullptr) siglongjmp(*escape, signal);
  // Not ours: put back who was there, and let the instruction fault again.
  for (int i = 0; i < kCount; ++i)
    if (kSignals[i] == signal) sigaction(signal, &previous[i], nullptr);
}

}  // namespace

FaultGuard::FaultGuard() {
  const std::lock_guard<std::mutex> lock(mutex);
  if (guards++ > 0) return;
  struct sigaction action{};
  action.sa_handler = OnFault;
  sigemptyset(&action.sa_mask);
  for (int i = 0; i < kCount; ++i) sigaction(kSignals[i], &action, &previous[i]);
}

FaultGuard::~FaultGuard() {
  const std::lock_guard<std::mutex> lock(mutex);
  if (--guards > 0) return;
  for (int i = 0; i < kCount; ++i) sigaction(kSignals[i], &previous[i], nullptr);
}

int RunGuarded(void (*body)(void*), void* context) {
  sigjmp_buf here;
  sigjmp_buf* const outer = escape;  // host code that launches kernels is itself guarded
  const int signal = sigsetjmp(here, 1);
  if (signal == 0) {
    escape = &here;
    body(context);
  }
  escape = outer;
  return signal;
}

void* SwapEscape(void* other) {
  void* before = escape;
  escape = static_cast<sigjmp_buf*>(other);
  return before;
}

const char* FaultName(int signal) {
  switch (signal) {
    case SIGFPE:
      return "an integer division by zero";
    case SIGSEGV:
    case SIGBUS:
      return "an access to memory that is not there";
    default:
      return "an illegal instruction";
  }
}

}  // namespace tilewright::twin
