#include "launcher.hpp"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <tuple>
#include <utility>
#include <vector>

#include "acl_library.hpp"

namespace tilewright::npu {
namespace {

constexpr size_t kMaxTilingBytes = 16 * 1024;  // of one placeholder; tilings are small PODs
constexpr uint32_t kMaxBlockDim = 65535;

struct Binary {
  aclrtBinHandle handle = nullptr;
  std::map<std::string, aclrtFuncHandle> functions;
};

struct Workspace {
  void* memory = nullptr;
  size_t bytes = 0;
};

// What stays between launches. One lock: a launch only queues work, so it is held for microseconds.
struct State {
  std::mutex mutex;
  std::map<std::tuple<int32_t, std::string, const void*>, Binary> binaries;
  std::map<std::pair<int32_t, void*>, Workspace> workspaces;
};

State& Shared() {
  static State state;
  return state;
}

// Makes the device current on this thread, and gives back the one that was.
class DeviceScope {
 public:
  DeviceScope(const Acl& acl, int32_t device) : acl_(acl) {
    uint32_t count = 0;
    acl.Check(acl.aclrtGetDeviceCount(&count), "aclrtGetDeviceCount", Failure::kNoDevice);
    if (device < 0 || static_cast<uint32_t>(device) >= count) {
      throw NpuError(Failure::kNoDevice, "NPU " + std::to_string(device) + " does not exist; " +
                                             std::to_string(count) + " are here");
    }
    int32_t current = -1;
    if (acl.aclrtGetDevice(&current) == ACL_SUCCESS && current == device) return;
    acl.Check(acl.aclrtSetDevice(device), "aclrtSetDevice", Failure::kNoDevice);
    restore_ = current;
  }
  ~DeviceScope() {
    if (restore_ >= 0) acl_.aclrtSetDevice(restore_);
  }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  const Acl& acl_;
  int32_t restore_ = -1;
};

[[noreturn]] void Refuse(const std::string& sentence) { throw NpuError(Failure::kRefusedCall, sentence); }

void CheckCall(const tw_npu_call& call) {
  if (call.abi_version != TW_NPU_ABI_VERSION) {
    Refuse("the call is of ABI version " + std::to_string(call.abi_version) + "; this launcher takes " +
           std::to_string(TW_NPU_ABI_VERSION));
  }
  if (call.kernel == nullptr || *call.kernel == '\0') Refuse("the call names no kernel");
  if (call.image == nullptr && (call.binary == nullptr || *call.binary == '\0'))
    Refuse("the call names no binary");
  if (call.buffer_count > 0 && call.buffers == nullptr) Refuse("the call has buffers and no list of them");
  if (call.tiling_bytes > 0 && call.tiling == nullptr)
    Refuse("the call has tiling bytes and no address of them");
  if (call.tiling_bytes > kMaxTilingBytes) {
    Refuse("the tiling has " + std::to_string(call.tiling_bytes) + " bytes; at most " +
           std::to_string(kMaxTilingBytes));
  }
  if (call.block_dim > kMaxBlockDim) {
    Refuse("block_dim is " + std::to_string(call.block_dim) + "; at most " + std::to_string(kMaxBlockDim));
  }
  if (call.core < TW_NPU_CUBE || call.core > TW_NPU_MIX) {
    Refuse("core is " + std::to_string(call.core) + "; accepted: 0 cube, 1 vector, 2 mix");
  }
}

void CheckSoc(const Acl& acl, const tw_npu_call& call) {
  if (call.soc == nullptr) return;
  const char* name = acl.aclrtGetSocName();
  const std::string have = name != nullptr ? name : "unknown";
  if (have.rfind(call.soc, 0) == 0) return;
  throw NpuError(Failure::kUnsupportedDevice,
                 std::string(call.kernel) + " was built for " + call.soc + "; this NPU is " + have);
}

std::string BinaryName(const tw_npu_call& call) {
  return call.binary != nullptr && *call.binary != '\0' ? call.binary : "(embedded)";
}

aclrtBinHandle Load(const Acl& acl, const tw_npu_call& call) {
  aclrtBinHandle handle = nullptr;
  const std::string name = BinaryName(call);
  if (call.image == nullptr) {
    if (!std::ifstream(name, std::ios::binary)) {
      throw NpuError(Failure::kMissingBinary,
                     std::string(call.kernel) + ": its binary " + name + " cannot be read");
    }
    acl.Check(acl.aclrtBinaryLoadFromFile(name.c_str(), nullptr, &handle), "loading " + name,
              Failure::kBadBinary);
    return handle;
  }
  // Bytes carry no file type: the magic tells which kind of core they are for.
  static constexpr uint32_t kMagic[] = {ACL_RT_BINARY_MAGIC_ELF_CUBE_CORE,
                                        ACL_RT_BINARY_MAGIC_ELF_VECTOR_CORE, ACL_RT_BINARY_MAGIC_ELF_AICORE};
  aclrtBinaryLoadOption option{};
  option.type = ACL_RT_BINARY_LOAD_OPT_MAGIC;
  option.value.magic = kMagic[call.core];
  const aclrtBinaryLoadOptions options{&option, 1};
  acl.Check(acl.aclrtBinaryLoadFromData(call.image, call.image_bytes, &options, &handle), "loading " + name,
            Failure::kBadBinary);
  return handle;
}

// Under the lock: the kernel's handle, loading the binary the first time.
aclrtFuncHandle FunctionOf(const Acl& acl, const tw_npu_call& call) {
  const std::string path = call.image == nullptr ? call.binary : "";
  Binary& binary = Shared().binaries[{call.device, path, call.image}];
  if (binary.handle == nullptr) binary.handle = Load(acl, call);
  aclrtFuncHandle& function = binary.functions[call.kernel];
  if (function == nullptr) {
    acl.Check(acl.aclrtBinaryGetFunction(binary.handle, call.kernel, &function),
              "finding kernel '" + std::string(call.kernel) + "' in " + BinaryName(call),
              Failure::kMissingKernel);
  }
  return function;
}

// Under the lock: workspace of this stream. Launches on one stream run one after another, so they share it;
// it is replaced by a larger one only after the stream has finished with it.
void* WorkspaceOf(const Acl& acl, const tw_npu_call& call) {
  if (call.workspace_bytes == 0) return nullptr;
  if (call.workspace != nullptr) return call.workspace;
  Workspace& kept = Shared().workspaces[{call.device, call.stream}];
  if (kept.bytes >= call.workspace_bytes) return kept.memory;
  if (kept.memory != nullptr) {
    acl.Check(acl.aclrtSynchronizeStream(call.stream), "aclrtSynchronizeStream before a larger workspace");
    acl.Check(acl.aclrtFree(kept.memory), "aclrtFree of the workspace");
    kept = {};
  }
  acl.Check(acl.aclrtMalloc(&kept.memory, call.workspace_bytes, ACL_MEM_MALLOC_HUGE_FIRST),
            "allocating " + std::to_string(call.workspace_bytes) + " bytes of workspace");
  kept.bytes = call.workspace_bytes;
  return kept.memory;
}

void AppendAddress(const Acl& acl, aclrtArgsHandle args, void* address) {
  aclrtParamHandle parameter = nullptr;
  acl.Check(acl.aclrtKernelArgsAppend(args, &address, sizeof(address), &parameter), "aclrtKernelArgsAppend");
}

// The runtime copies a placeholder's bytes to the device with the arguments and passes their device address,
// ordered with the launch: no allocation and no lifetime to mind.
void FillTiling(const Acl& acl, aclrtArgsHandle args, aclrtParamHandle place, const tw_npu_call& call) {
  void* buffer = nullptr;
  acl.Check(acl.aclrtKernelArgsGetPlaceHolderBuffer(args, place, call.tiling_bytes, &buffer),
            "aclrtKernelArgsGetPlaceHolderBuffer");
  std::memcpy(buffer, call.tiling, call.tiling_bytes);
}

}  // namespace

void Launch(const tw_npu_call& call) {
  CheckCall(call);
  if (call.block_dim == 0) return;
  const Acl& acl = Acl::Get();
  const DeviceScope device(acl, call.device);
  CheckSoc(acl, call);
  const std::lock_guard lock(Shared().mutex);
  const aclrtFuncHandle function = FunctionOf(acl, call);
  void* workspace = WorkspaceOf(acl, call);

  aclrtArgsHandle args = nullptr;
  acl.Check(acl.aclrtKernelArgsInit(function, &args), "aclrtKernelArgsInit");
  for (uint32_t i = 0; i < call.buffer_count; ++i) AppendAddress(acl, args, call.buffers[i]);
  AppendAddress(acl, args, workspace);
  if (call.tiling_bytes == 0) {
    AppendAddress(acl, args, nullptr);
  } else {
    aclrtParamHandle place = nullptr;
    acl.Check(acl.aclrtKernelArgsAppendPlaceHolder(args, &place), "aclrtKernelArgsAppendPlaceHolder");
    FillTiling(acl, args, place, call);
  }
  acl.Check(acl.aclrtKernelArgsFinalize(args), "aclrtKernelArgsFinalize");

  aclrtLaunchKernelAttr attribute{};
  attribute.id = ACL_RT_LAUNCH_KERNEL_ATTR_SCHEM_MODE;
  attribute.value.schemMode = 1;  // batch: start only when every block has its core
  aclrtLaunchKernelCfg config{&attribute, 1};
  const bool resident = (call.flags & TW_NPU_RESIDENT_BLOCKS) != 0;
  acl.Check(acl.aclrtLaunchKernelWithConfig(function, call.block_dim, call.stream,
                                            resident ? &config : nullptr, args, nullptr),
            "launching '" + std::string(call.kernel) + "'");
}

void Release(int32_t device, void* stream) {
  const Acl& acl = Acl::Get();
  const std::lock_guard lock(Shared().mutex);
  const auto kept = Shared().workspaces.find({device, stream});
  if (kept == Shared().workspaces.end()) return;
  const DeviceScope scope(acl, device);
  acl.Check(acl.aclrtSynchronizeStream(stream), "aclrtSynchronizeStream");
  acl.Check(acl.aclrtFree(kept->second.memory), "aclrtFree of the workspace");
  Shared().workspaces.erase(kept);
}

void Unload() {
  const std::lock_guard lock(Shared().mutex);
  if (Shared().binaries.empty()) return;
  const Acl& acl = Acl::Get();
  for (auto& [key, binary] : Shared().binaries) {
    if (binary.handle == nullptr) continue;
    const DeviceScope scope(acl, std::get<0>(key));
    acl.Check(acl.aclrtBinaryUnLoad(binary.handle), "aclrtBinaryUnLoad");
    binary.handle = nullptr;
  }
  Shared().binaries.clear();
}

}  // namespace tilewright::npu

namespace {

template <typename Body>
int Guarded(char* error, size_t error_size, Body body) {
  const auto say = [&](const char* sentence) {
    if (error == nullptr || error_size == 0) return;
    const size_t size = std::min(std::strlen(sentence), error_size - 1);
    std::memcpy(error, sentence, size);
    error[size] = '\0';
  };
  try {
    body();
    return TW_NPU_OK;
  } catch (const tilewright::npu::NpuError& failure) {
    say(failure.what());
    return failure.failure() <= tilewright::npu::Failure::kRefusedCall ? TW_NPU_REFUSED : TW_NPU_FAILED;
  } catch (const std::exception& failure) {
    say(failure.what());
    return TW_NPU_FAILED;
  }
}

}  // namespace

#define TW_EXPORT __attribute__((visibility("default")))

extern "C" {

TW_EXPORT int tw_npu_launch(const tw_npu_call* call) {
  if (call == nullptr) return TW_NPU_REFUSED;
  return Guarded(call->error, call->error_size, [&] { tilewright::npu::Launch(*call); });
}

TW_EXPORT int tw_npu_release(int32_t device, void* stream, char* error, size_t error_size) {
  return Guarded(error, error_size, [&] { tilewright::npu::Release(device, stream); });
}

TW_EXPORT int tw_npu_unload(char* error, size_t error_size) {
  return Guarded(error, error_size, [&] { tilewright::npu::Unload(); });
}
}
