// A recording stand-in for libamdhip64.so: it checks what the runtime checks and runs nothing.
#include <memory>

#include "fake_gpu.hpp"

namespace {

constexpr int kInvalidValue = 1, kInvalidImage = 200, kNoBinaryForGpu = 209, kNoDevice = 100,
              kInvalidDevice = 101, kNotFound = 500;

struct Module {
  fake::Elf elf;
};

thread_local int g_device = 0;

// The low byte of an AMDGPU e_flags is the processor: EF_AMDGPU_MACH of the LLVM AMDGPU user guide.
constexpr uint32_t kMachGfx942 = 0x4c, kMachGfx90a = 0x3f;
uint32_t Mach() {
  return fake::Env("TILEWRIGHT_FAKE_ARCH", "gfx942").rfind("gfx942", 0) == 0 ? kMachGfx942 : kMachGfx90a;
}

// The code object's metadata note is MessagePack; each element of `.args` has one `.size`, in order.
bool ReadArguments(const fake::Elf& elf, fake::Kernel& kernel) {
  const fake::Section* note = elf.Find(".note");
  if (note == nullptr || !elf.HasSymbol(kernel.symbol + ".kd")) return false;
  const std::string_view text(reinterpret_cast<const char*>(note->data), note->size);
  constexpr std::string_view kSize = "\xa5.size";
  for (size_t at = text.find(kSize); at != std::string_view::npos; at = text.find(kSize, at + 1)) {
    kernel.parameter_bytes.push_back(static_cast<unsigned char>(text[at + kSize.size()]));
  }
  return true;
}

}  // namespace

#define FAKE_TOLD(name) \
  if (const auto code = fake::Told(name)) return *code

extern "C" {

int hipInit(unsigned) {
  FAKE_TOLD("hipInit");
  return fake::Devices() == 0 ? kNoDevice : 0;
}
const char* hipGetErrorName(int code) {
  switch (code) {
    case kInvalidValue:
      return "hipErrorInvalidValue";
    case kInvalidImage:
      return "hipErrorInvalidImage";
    case kNoBinaryForGpu:
      return "hipErrorNoBinaryForGpu";
    case kNotFound:
      return "hipErrorNotFound";
    default:
      return "hipErrorUnknown";
  }
}
const char* hipGetErrorString(int) { return "a fake's error"; }
int hipGetDeviceCount(int* count) {
  *count = fake::Devices();
  return 0;
}
int hipGetDevicePropertiesR0600(void* properties, int device) {
  if (device < 0 || device >= fake::Devices()) return kInvalidDevice;
  constexpr size_t kArchName = 1160, kSize = 1472;
  std::memset(properties, 0x5a, kSize);
  const std::string arch = fake::Env("TILEWRIGHT_FAKE_ARCH", "gfx942:sramecc+:xnack-");
  std::memcpy(static_cast<char*>(properties) + kArchName, arch.c_str(), arch.size() + 1);
  return 0;
}
int hipGetDevice(int* device) {
  *device = g_device;
  return 0;
}
int hipSetDevice(int device) {
  if (device < 0 || device >= fake::Devices()) return kInvalidDevice;
  fake::Line("hipSetDevice").Number("device", device);
  g_device = device;
  return 0;
}
int hipModuleLoadData(void** module, const void* image) {
  FAKE_TOLD("hipModuleLoadData");
  auto loaded = std::make_unique<Module>(Module{fake::Elf(image)});
  constexpr int kAmdGpuMachine = 224;
  if (!loaded->elf.valid() || loaded->elf.machine() != kAmdGpuMachine) return kInvalidImage;
  fake::Line("hipModuleLoadData")
      .Text("sha256", tilewright::launch::Sha256(image, loaded->elf.size()))
      .Number("device", g_device);
  if ((loaded->elf.flags() & 0xff) != Mach()) return kNoBinaryForGpu;
  *module = loaded.release();
  return 0;
}
int hipModuleGetFunction(void** function, void* module, const char* symbol) {
  auto kernel = std::make_unique<fake::Kernel>();
  kernel->symbol = symbol;
  if (!ReadArguments(static_cast<Module*>(module)->elf, *kernel)) return kNotFound;
  fake::Line("hipModuleGetFunction").Text("symbol", symbol);
  *function = kernel.release();
  return 0;
}
int hipModuleLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                          unsigned bz, unsigned shared, void* stream, void** parameters, void** extra) {
  FAKE_TOLD("hipModuleLaunchKernel");
  const auto& kernel = *static_cast<fake::Kernel*>(function);
  constexpr unsigned kLds = 64 * 1024;
  if (shared > kLds || extra != nullptr || gx * gy * gz == 0 || bx % 64 != 0) return kInvalidValue;
  fake::Line("hipModuleLaunchKernel")
      .Text("symbol", kernel.symbol)
      .Raw("grid", fake::Triple(gx, gy, gz))
      .Raw("block", fake::Triple(bx, by, bz))
      .Number("shared", shared)
      .Number("stream", fake::Address(stream))
      .Number("device", g_device)
      .Raw("parameters", fake::Parameters(kernel, parameters));
  return 0;
}
int hipMallocAsync(void** memory, size_t bytes, void* stream) {
  *memory = std::malloc(bytes);
  fake::Line("hipMallocAsync")
      .Number("bytes", static_cast<long long>(bytes))
      .Number("stream", fake::Address(stream))
      .Number("memory", fake::Address(*memory));
  return 0;
}
int hipFreeAsync(void* memory, void* stream) {
  fake::Line("hipFreeAsync").Number("memory", fake::Address(memory)).Number("stream", fake::Address(stream));
  std::free(memory);
  return 0;
}
}
