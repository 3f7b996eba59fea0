// A recording stand-in for libcuda.so.1: it checks what a driver checks and runs nothing.
#include <algorithm>
#include <map>
#include <memory>

#include "fake_gpu.hpp"

namespace {

constexpr int kInvalidValue = 1, kNoDevice = 100, kInvalidDevice = 101, kInvalidImage = 200,
              kInvalidContext = 201, kNoBinaryForGpu = 209, kNotFound = 500;

struct Module {
  fake::Elf elf;
};

int g_context_tags[64];
thread_local std::vector<void*> g_stack;

int Arch() { return std::atoi(fake::Env("TILEWRIGHT_FAKE_ARCH", "sm_90").c_str() + 3); }

// cubin e_flags: the virtual architecture stands in bits 0-7 up to ABI 7, in bits 8-15 from ABI 8 on.
int BuiltFor(const fake::Elf& elf) {
  return elf.abi_version() >= 8 ? elf.flags() >> 8 & 0xff : elf.flags() & 0xff;
}

// .nv.info.<kernel>: records of {format, attribute, size}; KPARAM_INFO gives ordinal and size, REQNTID the
// block.
bool ReadInfo(const fake::Elf& elf, fake::Kernel& kernel) {
  const fake::Section* info = elf.Find(".nv.info." + kernel.symbol);
  if (info == nullptr) return false;
  constexpr int kSized = 4, kReqNtid = 0x10, kParameter = 0x17;
  for (size_t at = 0; at + 4 <= info->size;) {
    const unsigned char* p = info->data + at;
    const size_t size = p[0] == kSized ? fake::Read<uint16_t>(p + 2) : 0;
    if (p[0] == kSized && p[1] == kParameter) {
      const size_t ordinal = fake::Read<uint16_t>(p + 8), bytes = fake::Read<uint32_t>(p + 12) >> 18;
      if (kernel.parameter_bytes.size() <= ordinal) kernel.parameter_bytes.resize(ordinal + 1);
      kernel.parameter_bytes[ordinal] = bytes;
    }
    if (p[0] == kSized && p[1] == kReqNtid) kernel.required_block = fake::Read<uint32_t>(p + 4);
    at += 4 + size;
  }
  return true;
}

}  // namespace

#define FAKE_TOLD(name) \
  if (const auto code = fake::Told(name)) return *code

extern "C" {

int cuInit(unsigned) {
  FAKE_TOLD("cuInit");
  return fake::Devices() == 0 ? kNoDevice : 0;
}
int cuGetErrorName(int code, const char** name) {
  static const std::map<int, const char*> kNames = {{kInvalidValue, "CUDA_ERROR_INVALID_VALUE"},
                                                    {kNoDevice, "CUDA_ERROR_NO_DEVICE"},
                                                    {kInvalidDevice, "CUDA_ERROR_INVALID_DEVICE"},
                                                    {kInvalidImage, "CUDA_ERROR_INVALID_IMAGE"},
                                                    {kInvalidContext, "CUDA_ERROR_INVALID_CONTEXT"},
                                                    {kNoBinaryForGpu, "CUDA_ERROR_NO_BINARY_FOR_GPU"},
                                                    {kNotFound, "CUDA_ERROR_NOT_FOUND"}};
  const auto found = kNames.find(code);
  *name = found != kNames.end() ? found->second : nullptr;
  return found != kNames.end() ? 0 : kInvalidValue;
}
int cuGetErrorString(int code, const char** text) {
  *text = code == kNotFound ? "named symbol not found" : nullptr;
  return *text != nullptr ? 0 : kInvalidValue;
}
int cuDeviceGetCount(int* count) {
  *count = fake::Devices();
  return 0;
}
int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return ordinal >= 0 && ordinal < fake::Devices() ? 0 : kInvalidDevice;
}
int cuDeviceGetAttribute(int* value, int attribute, int) {
  constexpr int kMajor = 75, kMinor = 76, kSharedOptin = 97;
  if (attribute == kMajor) return *value = Arch() / 10, 0;
  if (attribute == kMinor) return *value = Arch() % 10, 0;
  if (attribute == kSharedOptin) return *value = (Arch() / 10 == 8 ? 163 : 227) * 1024, 0;
  return kInvalidValue;
}
int cuDevicePrimaryCtxRetain(void** context, int device) {
  fake::Line("cuDevicePrimaryCtxRetain").Number("device", device);
  *context = &g_context_tags[device];
  return 0;
}
int cuCtxGetCurrent(void** context) {
  *context = g_stack.empty() ? nullptr : g_stack.back();
  return 0;
}
int cuCtxPushCurrent_v2(void* context) {
  g_stack.push_back(context);
  return 0;
}
int cuCtxPopCurrent_v2(void** context) {
  if (g_stack.empty()) return kInvalidContext;
  *context = g_stack.back();
  g_stack.pop_back();
  return 0;
}
int cuModuleLoadData(void** module, const void* image) {
  FAKE_TOLD("cuModuleLoadData");
  if (g_stack.empty()) return kInvalidContext;
  auto loaded = std::make_unique<Module>(Module{fake::Elf(image)});
  constexpr int kCudaMachine = 190;
  if (!loaded->elf.valid() || loaded->elf.machine() != kCudaMachine) return kInvalidImage;
  const int built = BuiltFor(loaded->elf);
  fake::Line("cuModuleLoadData")
      .Text("sha256", tilewright::launch::Sha256(image, loaded->elf.size()))
      .Number("arch", built)
      .Number("device", static_cast<int*>(g_stack.back()) - g_context_tags);
  if (built / 10 != Arch() / 10 || built > Arch()) return kNoBinaryForGpu;
  *module = loaded.release();
  return 0;
}
int cuModuleGetFunction(void** function, void* module, const char* symbol) {
  auto kernel = std::make_unique<fake::Kernel>();
  kernel->symbol = symbol;
  if (!ReadInfo(static_cast<Module*>(module)->elf, *kernel)) return kNotFound;
  fake::Line("cuModuleGetFunction").Text("symbol", symbol);
  *function = kernel.release();
  return 0;
}
int cuFuncGetAttribute(int* value, int, void*) {
  *value = 0;
  return 0;
}
int cuFuncSetAttribute(void* function, int attribute, int value) {
  constexpr int kMaxDynamicShared = 8;
  if (attribute != kMaxDynamicShared) return kInvalidValue;
  fake::Line("cuFuncSetAttribute").Number("max_dynamic_shared", value);
  static_cast<fake::Kernel*>(function)->max_dynamic_shared = static_cast<uint32_t>(value);
  return 0;
}
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned shared, void* stream, void** parameters, void** extra) {
  FAKE_TOLD("cuLaunchKernel");
  if (g_stack.empty()) return kInvalidContext;
  const auto& kernel = *static_cast<fake::Kernel*>(function);
  if (shared > kernel.max_dynamic_shared || extra != nullptr || gx * gy * gz == 0) return kInvalidValue;
  if (kernel.required_block != 0 && kernel.required_block != bx) return kInvalidValue;
  fake::Line("cuLaunchKernel")
      .Text("symbol", kernel.symbol)
      .Raw("grid", fake::Triple(gx, gy, gz))
      .Raw("block", fake::Triple(bx, by, bz))
      .Number("shared", shared)
      .Number("stream", fake::Address(stream))
      .Number("device", static_cast<int*>(g_stack.back()) - g_context_tags)
      .Raw("parameters", fake::Parameters(kernel, parameters));
  return 0;
}
int cuMemAllocAsync(unsigned long long* memory, size_t bytes, void* stream) {
  *memory = reinterpret_cast<unsigned long long>(std::malloc(bytes));
  fake::Line("cuMemAllocAsync")
      .Number("bytes", static_cast<long long>(bytes))
      .Number("stream", fake::Address(stream))
      .Number("memory", static_cast<long long>(*memory));
  return 0;
}
int cuMemFreeAsync(unsigned long long memory, void* stream) {
  fake::Line("cuMemFreeAsync")
      .Number("memory", static_cast<long long>(memory))
      .Number("stream", fake::Address(stream));
  std::free(reinterpret_cast<void*>(memory));
  return 0;
}
}
