#include "device/place.hpp"

#include "border.hpp"
#include "launcher/dl.hpp"
#include "launcher/tw_gpu.h"

namespace tilewright::device {
namespace {

struct Place {
  void* stream = nullptr;
  int32_t device = 0;
  // A machine may have both vendors' drivers; a stream and its pointers belong to torch's.
  const char* api = "auto";
};

thread_local Place place;

// The libraries of torch that know its current stream, and whose driver they stand on.
struct Source {
  const char* library;
  const char* api;
};
constexpr Source kSources[] = {{"libtorch_cuda.so", "cuda"}, {"libtorch_hip.so", "hip"}};

}  // namespace

// The function is not in libtorch_cpu, so it is looked for in the libraries that this torch has loaded.
void enter(int32_t device) {
  using Get = int32_t (*)(int32_t, void**);  // 0: success, as in aoti_torch/c/shim.h
  for (const Source& source : kSources) {
    void* library = dlopen(source.library, RTLD_LAZY | RTLD_NOLOAD);
    if (library == nullptr) continue;
    const auto get = reinterpret_cast<Get>(dlsym(library, "aoti_torch_get_current_cuda_stream"));
    void* stream = nullptr;
    const bool found = get != nullptr && get(device, &stream) == 0;
    dlclose(library);
    if (!found) continue;
    place = {stream, device, source.api};
    return;
  }
  throw tw::border::UsageError("this torch has no CUDA or ROCm library that tells its current stream");
}

int start(const tw_call* call, const char* family) {
  return tw_gpu_launch(call, place.stream, place.device, family, place.api);
}

}  // namespace tilewright::device
