// libamdhip64.so, by its ABI. Names and values: HIP runtime API reference, HIP 6 and later.
#include <cstring>

#include "launcher/driver.hpp"

namespace tilewright::launch {
namespace {

using Result = int;

// Of hipDeviceProp_tR0600, whose layout HIP keeps under that name.
constexpr size_t kArchNameOffset = 1160;
constexpr size_t kArchNameSize = 256;
constexpr size_t kPropertiesSize = 1472;
constexpr int64_t kMaxThreads = 4294967295;  // blocks x threads per axis must fit 32 bits
constexpr uint32_t kMaxLds = 64 * 1024;

class Hip final : public Driver {
 public:
  Hip() : library_("TILEWRIGHT_LIBHIP", {"libamdhip64.so", "libamdhip64.so.7", "libamdhip64.so.6"}) {
    library_.Bind(init_, "hipInit");
    library_.Bind(error_name_, "hipGetErrorName");
    library_.Bind(error_string_, "hipGetErrorString");
    library_.Bind(device_count_, "hipGetDeviceCount");
    library_.Bind(properties_, "hipGetDevicePropertiesR0600");
    library_.Bind(get_device_, "hipGetDevice");
    library_.Bind(set_device_, "hipSetDevice");
    library_.Bind(module_load_, "hipModuleLoadData");
    library_.Bind(module_function_, "hipModuleGetFunction");
    library_.Bind(launch_, "hipModuleLaunchKernel");
    library_.Bind(allocate_, "hipMallocAsync");
    library_.Bind(release_, "hipFreeAsync");
    const Result code = init_(0);
    constexpr Result kNoDevice = 100;  // hipErrorNoDevice
    if (code == kNoDevice) return;
    Check(code, "hipInit", Failure::kNoDevice);
    Check(device_count_(&count_), "hipGetDeviceCount", Failure::kNoDevice);
  }

  Api api() const override { return Api::kHip; }
  int DeviceCount() override { return count_; }

  std::string Arch(int device) override {
    // Room to spare: a later runtime may fill more than the layout known here.
    alignas(16) char properties[kPropertiesSize + 4096] = {};
    Check(properties_(properties, device), "hipGetDeviceProperties", Failure::kNoDevice);
    const char* name = properties + kArchNameOffset;
    const std::string full(name, strnlen(name, kArchNameSize));
    return full.substr(0, full.find(':'));  // "gfx942:sramecc+:xnack-"
  }

  bool Runs(const std::string& built, const std::string& device) const override { return built == device; }

  void* Load(int, const void* image, const char* symbol, uint32_t shared_bytes) override {
    if (shared_bytes > kMaxLds) {
      throw LaunchError(Failure::kUnsupportedDevice,
                        std::string(symbol) + " needs " + std::to_string(shared_bytes) +
                            " bytes of shared memory per block; this device has " + std::to_string(kMaxLds));
    }
    void* module = nullptr;
    Check(module_load_(&module, image), "hipModuleLoadData", Failure::kBadBinary);
    void* function = nullptr;
    Check(module_function_(&function, module, symbol),
          std::string("hipModuleGetFunction of '") + symbol + "'", Failure::kMissingSymbol);
    return function;
  }

  void Start(const Launch& l) override {
    Check(launch_(l.function, l.grid[0], l.grid[1], l.grid[2], l.block, 1, 1, l.shared_bytes, l.stream,
                  l.parameters, nullptr),
          "hipModuleLaunchKernel");
  }

  void* Allocate(size_t bytes, void* stream) override {
    void* memory = nullptr;
    Check(allocate_(&memory, bytes, stream), "hipMallocAsync");
    return memory;
  }
  void Release(void* memory, void* stream) override { Check(release_(memory, stream), "hipFreeAsync"); }
  int64_t GridLimit(int axis, uint32_t block) const override {
    return axis == 0 ? kMaxThreads / block : kMaxThreads;
  }

 protected:
  intptr_t Enter(int device) override {
    int current = -1;
    Check(get_device_(&current), "hipGetDevice");
    if (current == device) return -1;
    Check(set_device_(device), "hipSetDevice", Failure::kNoDevice);
    return current;
  }
  void Leave(intptr_t restore) noexcept override {
    if (restore >= 0) set_device_(static_cast<int>(restore));
  }

 private:
  void Check(Result code, const std::string& what, Failure failure = Failure::kDriverError) {
    if (code == 0) return;
    const char* label = error_name_(code);
    const char* text = error_string_(code);
    throw LaunchError(failure, what + " failed: " + (label ? label : std::to_string(code)) +
                                   (text ? ", " : "") + (text ? text : ""));
  }

  Library library_;
  int count_ = 0;
  Result (*init_)(unsigned) = nullptr;
  const char* (*error_name_)(Result) = nullptr;
  const char* (*error_string_)(Result) = nullptr;
  Result (*device_count_)(int*) = nullptr;
  Result (*properties_)(void*, int) = nullptr;
  Result (*get_device_)(int*) = nullptr;
  Result (*set_device_)(int) = nullptr;
  Result (*module_load_)(void**, const void*) = nullptr;
  Result (*module_function_)(void**, void*, const char*) = nullptr;
  Result (*launch_)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*,
                    void**, void**) = nullptr;
  Result (*allocate_)(void**, size_t, void*) = nullptr;
  Result (*release_)(void*, void*) = nullptr;
};

}  // namespace

Driver& HipDriver() {
  static Hip driver;
  return driver;
}

}  // namespace tilewright::launch
