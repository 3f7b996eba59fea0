// Host code that launches kernels: each launch runs at once, on the buffers the host code was given and those
// it allocated as device memory.
#include "host_launch.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "guard.h"
#include "machine.h"

namespace tilewright::twin {

namespace {

// What tw_twin_run_host keeps while its host code runs.
struct Session {
  tw_twin_launch launch;
  std::vector<tw_twin_arg> buffers;
  std::string documents, error;
  bool found = false;
};

thread_local Session* session = nullptr;
thread_local std::string host_json = "[]", host_error;

// The name of every buffer that the host code allocated itself.
constexpr char kDeviceMemory[] = "device memory";

void Fail(const std::string& why) {
  if (session->error.empty()) session->error = why;
}

}  // namespace

}  // namespace tilewright::twin

using namespace tilewright::twin;

#define TW_EXPORT __attribute__((visibility("default")))

extern "C" {

TW_EXPORT int tw_twin_run_call(const tw_twin_launch* launch, void (*call)(void*), void* context) {
  const KernelCall given{call, context};
  return RunLaunch(*launch, &given);
}

TW_EXPORT int tw_twin_run_host(const tw_twin_launch* launch, void (*host)(void*), void* context) {
  Session mine{*launch, {}, "", "", false};
  for (uint32_t i = 0; i < launch->arg_count; ++i)
    if (launch->args[i].kind == TW_TWIN_BUFFER) mine.buffers.push_back(launch->args[i]);
  Session* outer = session;
  session = &mine;
  {
    const FaultGuard guard;
    if (const int fault = RunGuarded(host, context))
      Fail(std::string("the host code crashed: ") + FaultName(fault));
  }
  session = outer;
  host_json = "[" + mine.documents + "]";
  host_error = mine.error;
  if (!mine.error.empty()) return 2;
  return mine.found ? 1 : 0;
}

TW_EXPORT const char* tw_twin_host_json(void) { return host_json.c_str(); }
TW_EXPORT const char* tw_twin_host_error(void) { return host_error.c_str(); }

TW_EXPORT void twi_launch(const char* kernel, uint64_t blocks, void (*call)(void*), void* context) {
  if (session == nullptr) return;
  if (!session->error.empty()) return;
  tw_twin_launch launch = session->launch;
  launch.kernel = kernel;
  launch.args = session->buffers.data();
  launch.arg_count = static_cast<uint32_t>(session->buffers.size());
  launch.block_dim = blocks > 65535 ? 65536 : static_cast<uint32_t>(blocks);
  if (!session->documents.empty()) launch.flags |= TW_TWIN_APPEND_TRACE;
  tw_twin_result* result = nullptr;
  launch.result = &result;
  const KernelCall given{call, context};
  const int code = RunLaunch(launch, &given);
  if (code == 2) return Fail(std::string(kernel) + ": " + tw_twin_error());
  session->found |= code == 1;
  const std::string text = tw_twin_result_json(result);
  session->documents += std::string(session->documents.empty() ? "" : ", ") + "{\"kernel\": \"" +
                        Escape(kernel) + "\", " + text.substr(1);
  tw_twin_result_free(result);
}

TW_EXPORT void* twi_device_alloc(uint64_t bytes) {
  void* memory = nullptr;
  if (bytes == 0 || posix_memalign(&memory, 512, (bytes + 511) / 512 * 512) != 0) return nullptr;
  std::memset(memory, 0xff, bytes);  // NaN: reading what nobody wrote shows
  if (session != nullptr) session->buffers.push_back({kDeviceMemory, memory, bytes, 0, TW_TWIN_BUFFER});
  return memory;
}

TW_EXPORT void twi_device_free(void* memory) {
  if (session == nullptr) return std::free(memory);
  // Only what was allocated here: a buffer the host code was given stays its owner's.
  auto& buffers = session->buffers;
  const auto mine = std::find_if(buffers.begin(), buffers.end(), [memory](const tw_twin_arg& b) {
    return b.data == memory && b.name == kDeviceMemory;
  });
  if (mine == buffers.end()) return;
  buffers.erase(mine);
  std::free(memory);
}

}  // extern "C"
