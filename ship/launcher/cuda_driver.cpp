// libcuda.so.1, by its ABI. Names and values: CUDA Driver API reference.
#include <cstring>
#include <mutex>

#include "launcher/driver.hpp"

namespace tilewright::launch {
namespace {

using Result = int;
using Device = int;
using Pointer = unsigned long long;

constexpr int kComputeCapabilityMajor = 75;   // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
constexpr int kComputeCapabilityMinor = 76;   // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR
constexpr int kMaxSharedOptin = 97;           // CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
constexpr int kFunctionStaticShared = 1;      // CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES
constexpr int kFunctionMaxDynamicShared = 8;  // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
constexpr uint32_t kSharedWithoutOptin = 48 * 1024;
constexpr int64_t kMaxGridX = 2147483647;
constexpr int64_t kMaxGridYZ = 65535;

class Cuda final : public Driver {
 public:
  Cuda() : library_("TILEWRIGHT_LIBCUDA", {"libcuda.so.1"}) {
    library_.Bind(init_, "cuInit");
    library_.Bind(error_name_, "cuGetErrorName");
    library_.Bind(error_string_, "cuGetErrorString");
    library_.Bind(device_count_, "cuDeviceGetCount");
    library_.Bind(device_get_, "cuDeviceGet");
    library_.Bind(device_attribute_, "cuDeviceGetAttribute");
    library_.Bind(primary_retain_, "cuDevicePrimaryCtxRetain");
    library_.Bind(context_current_, "cuCtxGetCurrent");
    library_.Bind(context_push_, "cuCtxPushCurrent_v2");
    library_.Bind(context_pop_, "cuCtxPopCurrent_v2");
    library_.Bind(module_load_, "cuModuleLoadData");
    library_.Bind(module_function_, "cuModuleGetFunction");
    library_.Bind(function_get_, "cuFuncGetAttribute");
    library_.Bind(function_set_, "cuFuncSetAttribute");
    library_.Bind(launch_, "cuLaunchKernel");
    library_.Bind(allocate_, "cuMemAllocAsync");
    library_.Bind(release_, "cuMemFreeAsync");
    const Result code = init_(0);
    constexpr Result kNoDevice = 100;  // CUDA_ERROR_NO_DEVICE
    if (code == kNoDevice) return;
    Check(code, "cuInit", Failure::kNoDevice);
    Check(device_count_(&count_), "cuDeviceGetCount", Failure::kNoDevice);
  }

  Api api() const override { return Api::kCuda; }
  int DeviceCount() override { return count_; }

  std::string Arch(int device) override {
    int major = 0, minor = 0;
    Check(device_attribute_(&major, kComputeCapabilityMajor, Get(device)), "cuDeviceGetAttribute");
    Check(device_attribute_(&minor, kComputeCapabilityMinor, Get(device)), "cuDeviceGetAttribute");
    return "sm_" + std::to_string(major * 10 + minor);
  }

  // A cubin runs within its major version from its minor version on; Triton builds 9.0 and later as
  // architecture-specific (sm_90a), which run on exactly that capability.
  bool Runs(const std::string& built, const std::string& device) const override {
    const int have = std::atoi(device.c_str() + 3), want = std::atoi(built.c_str() + 3);
    return want >= 90 ? have == want : have / 10 == want / 10 && have >= want;
  }

  void* Load(int device, const void* image, const char* symbol, uint32_t shared_bytes) override {
    void* module = nullptr;
    Check(module_load_(&module, image), "cuModuleLoadData", Failure::kBadBinary);
    void* function = nullptr;
    Check(module_function_(&function, module, symbol), std::string("cuModuleGetFunction of '") + symbol + "'",
          Failure::kMissingSymbol);
    if (shared_bytes > kSharedWithoutOptin) {
      int limit = 0, fixed = 0;
      Check(device_attribute_(&limit, kMaxSharedOptin, Get(device)), "cuDeviceGetAttribute");
      Check(function_get_(&fixed, kFunctionStaticShared, function), "cuFuncGetAttribute");
      if (static_cast<int64_t>(shared_bytes) + fixed > limit) {
        throw LaunchError(Failure::kUnsupportedDevice,
                          std::string(symbol) + " needs " + std::to_string(shared_bytes + fixed) +
                              " bytes of shared memory per block; this device has " + std::to_string(limit));
      }
      Check(function_set_(function, kFunctionMaxDynamicShared, static_cast<int>(shared_bytes)),
            "cuFuncSetAttribute");
    }
    return function;
  }

  void Start(const Launch& l) override {
    Check(launch_(l.function, l.grid[0], l.grid[1], l.grid[2], l.block, 1, 1, l.shared_bytes, l.stream,
                  l.parameters, nullptr),
          "cuLaunchKernel");
  }

  void* Allocate(size_t bytes, void* stream) override {
    Pointer memory = 0;
    Check(allocate_(&memory, bytes, stream), "cuMemAllocAsync");
    return reinterpret_cast<void*>(memory);
  }
  void Release(void* memory, void* stream) override {
    Check(release_(reinterpret_cast<Pointer>(memory), stream), "cuMemFreeAsync");
  }
  int64_t GridLimit(int axis, uint32_t) const override { return axis == 0 ? kMaxGridX : kMaxGridYZ; }

 protected:
  intptr_t Enter(int device) override {
    void* primary = Primary(device);
    void* current = nullptr;
    Check(context_current_(&current), "cuCtxGetCurrent");
    if (current == primary) return 0;
    Check(context_push_(primary), "cuCtxPushCurrent");
    return 1;
  }
  void Leave(intptr_t restore) noexcept override {
    void* popped = nullptr;
    if (restore != 0) context_pop_(&popped);
  }

 private:
  void Check(Result code, const std::string& what, Failure failure = Failure::kDriverError) {
    if (code == 0) return;
    const char* label = nullptr;
    const char* text = nullptr;
    error_name_(code, &label);
    error_string_(code, &text);
    throw LaunchError(failure, what + " failed: " + (label ? label : std::to_string(code)) +
                                   (text ? ", " : "") + (text ? text : ""));
  }

  Device Get(int ordinal) {
    Device device = 0;
    Check(device_get_(&device, ordinal), "cuDeviceGet", Failure::kNoDevice);
    return device;
  }

  // The primary context is the one torch uses; it is retained once per device and kept.
  void* Primary(int device) {
    const std::lock_guard lock(mutex_);
    if (device < 0 || device >= kMaxDevices) {
      throw LaunchError(Failure::kNoDevice, "device " + std::to_string(device) + " is out of range");
    }
    if (primary_[device] == nullptr) {
      Check(primary_retain_(&primary_[device], Get(device)), "cuDevicePrimaryCtxRetain", Failure::kNoDevice);
    }
    return primary_[device];
  }

  static constexpr int kMaxDevices = 64;
  Library library_;
  std::mutex mutex_;
  void* primary_[kMaxDevices] = {};
  int count_ = 0;
  Result (*init_)(unsigned) = nullptr;
  Result (*error_name_)(Result, const char**) = nullptr;
  Result (*error_string_)(Result, const char**) = nullptr;
  Result (*device_count_)(int*) = nullptr;
  Result (*device_get_)(Device*, int) = nullptr;
  Result (*device_attribute_)(int*, int, Device) = nullptr;
  Result (*primary_retain_)(void**, Device) = nullptr;
  Result (*context_current_)(void**) = nullptr;
  Result (*context_push_)(void*) = nullptr;
  Result (*context_pop_)(void**) = nullptr;
  Result (*module_load_)(void**, const void*) = nullptr;
  Result (*module_function_)(void**, void*, const char*) = nullptr;
  Result (*function_get_)(int*, int, void*) = nullptr;
  Result (*function_set_)(void*, int, int) = nullptr;
  Result (*launch_)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*,
                    void**, void**) = nullptr;
  Result (*allocate_)(Pointer*, size_t, void*) = nullptr;
  Result (*release_)(Pointer, void*) = nullptr;
};

}  // namespace

Driver& CudaDriver() {
  static Cuda driver;
  return driver;
}

}  // namespace tilewright::launch
