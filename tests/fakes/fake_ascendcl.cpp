// A stand-in for libascendcl: device memory is host memory, a stream is a queue that runs when it is
// synchronised, and a launch executes the kernel on the twin. What the real library copies at the time of a
// call is copied here too, so freeing or changing it too early, or relying on the order of two streams,
// shows.
//
// Environment: TILEWRIGHT_FAKE_LOG (file to append to), TILEWRIGHT_TWIN_LIBRARY (libtilewright_twin.so;
// without it launches are recorded and not run), TILEWRIGHT_FAKE_SOC (default Ascend910B1),
// TILEWRIGHT_FAKE_DEVICES (default 1), TILEWRIGHT_FAKE_FAIL (`function=code`).
//
// A "kernel binary" is a shared object of kernels compiled for the twin.
#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>

#include "acl/acl_rt.h"
#include "fake_gpu.hpp"
#include "twin/twin.h"

namespace {

constexpr aclError kInvalid = 100000, kNotFound = 100002, kBadDevice = 107001, kAicore = 507015,
                   kNoContext = 107002;
constexpr size_t kAlignment = 512, kRedzone = 64;
constexpr unsigned char kRed = 0xa5;

struct Binary {
  std::string path;
  void* handle;
};
struct Function {
  Binary* binary;
  std::string name;
};
struct Parameter {
  std::vector<unsigned char> bytes;
  bool is_placeholder;
};
struct Arguments {
  std::list<Parameter> parameters;  // a list: handles point into it
  bool finalized = false;
};
struct Stream {
  int number;
  std::deque<std::function<aclError()>> queue;
};

struct Device {
  std::map<uintptr_t, size_t> allocations;
  std::list<Binary> binaries;
  std::list<Function> functions;
  std::list<Arguments> arguments;
  std::map<void*, Stream> streams;
  std::string message;
  int launches = 0;
};

Device& Fake() {
  static Device device;
  return device;
}

thread_local int t_device = -1;

aclError Fail(aclError code, const std::string& message) {
  Fake().message = message;
  return code;
}

// The rest of the allocation that an address points into.
size_t BytesAt(const void* pointer) {
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  auto above = Fake().allocations.upper_bound(address);
  if (above == Fake().allocations.begin()) return 0;
  --above;
  const uintptr_t end = above->first + above->second;
  return address < end ? end - address : 0;
}

bool RedzonesIntact() {
  for (const auto& [address, bytes] : Fake().allocations) {
    for (size_t i = 0; i < kRedzone; ++i) {
      if (reinterpret_cast<unsigned char*>(address)[bytes + i] != kRed) return false;
    }
  }
  return true;
}

std::string TwinSoc() {
  std::string name = fake::Env("TILEWRIGHT_FAKE_SOC", "Ascend910B1").substr(std::strlen("Ascend"));
  for (char& c : name) c = static_cast<char>(std::tolower(c));
  return name;
}

aclError RunOnTwin(const Function& function, std::list<Parameter>& parameters, uint32_t blocks, int launch) {
  const std::string path = fake::Env("TILEWRIGHT_TWIN_LIBRARY", "");
  fake::Line line("execute");
  line.Number("launch", launch).Text("kernel", function.name).Number("blocks", blocks);
  if (path.empty()) return ACL_SUCCESS;
  void* twin = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  const auto run = twin ? reinterpret_cast<decltype(&tw_twin_run)>(dlsym(twin, "tw_twin_run")) : nullptr;
  if (run == nullptr) return Fail(kNotFound, path + " is no twin library");
  const auto error = reinterpret_cast<decltype(&tw_twin_error)>(dlsym(twin, "tw_twin_error"));
  const auto json = reinterpret_cast<decltype(&tw_twin_result_json)>(dlsym(twin, "tw_twin_result_json"));
  const auto release = reinterpret_cast<decltype(&tw_twin_result_free)>(dlsym(twin, "tw_twin_result_free"));

  std::vector<tw_twin_arg> args;
  std::vector<std::string> names;
  names.reserve(parameters.size());
  for (Parameter& parameter : parameters) {
    names.push_back(parameter.is_placeholder ? "tiling" : "argument " + std::to_string(names.size()));
    tw_twin_arg arg{};
    arg.name = names.back().c_str();
    arg.kind = TW_TWIN_BUFFER;
    if (parameter.is_placeholder) {
      arg.data = parameter.bytes.data();
      arg.bytes = parameter.bytes.size();
    } else {
      arg.data = fake::Read<void*>(parameter.bytes.data());
      arg.bytes = BytesAt(arg.data);
      if (arg.data != nullptr && arg.bytes == 0) return Fail(kAicore, names.back() + " is no device memory");
    }
    args.push_back(arg);
  }
  const std::string soc = TwinSoc();
  tw_twin_result* result = nullptr;
  tw_twin_launch request{};
  request.abi_version = TW_TWIN_ABI_VERSION;
  request.library = function.binary->path.c_str();
  request.kernel = function.name.c_str();
  request.soc = soc.c_str();
  request.args = args.data();
  request.arg_count = static_cast<uint32_t>(args.size());
  request.block_dim = blocks;
  request.threads = 1;
  request.result = &result;
  const int status = run(&request);
  std::string found = status == 2 ? error() : result != nullptr ? json(result) : "";
  if (result != nullptr) release(result);
  line.Number("status", status);
  if (status != 0) return Fail(kAicore, "the twin found: " + found);
  if (!RedzonesIntact()) return Fail(kAicore, function.name + " wrote beyond a device allocation");
  return ACL_SUCCESS;
}

aclError Enqueue(aclrtStream stream, std::function<aclError()> task) {
  if (t_device < 0) return Fail(kNoContext, "no device is set on this thread");
  auto found = Fake().streams.find(stream);
  if (found == Fake().streams.end()) {
    if (stream != nullptr) return Fail(kInvalid, "no such stream");
    found = Fake().streams.emplace(nullptr, Stream{0, {}}).first;
  }
  found->second.queue.push_back(std::move(task));
  return ACL_SUCCESS;
}

aclError LoadObject(const std::string& path, aclrtBinHandle* handle) {
  void* opened = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (opened == nullptr) return Fail(kInvalid, std::string("not a kernel binary: ") + dlerror());
  Fake().binaries.push_back({path, opened});
  *handle = &Fake().binaries.back();
  return ACL_SUCCESS;
}

}  // namespace

#define FAKE_TOLD(name) \
  if (const auto code = fake::Told(name)) return Fail(*code, "told to fail")

extern "C" {

aclError aclrtGetDeviceCount(uint32_t* count) {
  *count = static_cast<uint32_t>(fake::Devices());
  return ACL_SUCCESS;
}
aclError aclrtGetDevice(int32_t* device) {
  *device = t_device;
  return t_device < 0 ? kNoContext : ACL_SUCCESS;
}
aclError aclrtSetDevice(int32_t device) {
  if (device < 0 || device >= fake::Devices()) return Fail(kBadDevice, "no such device");
  fake::Line("aclrtSetDevice").Number("device", device);
  t_device = device;
  return ACL_SUCCESS;
}
const char* aclrtGetSocName() {
  static const std::string name = fake::Env("TILEWRIGHT_FAKE_SOC", "Ascend910B1");
  return name.c_str();
}
const char* aclGetRecentErrMsg() { return Fake().message.empty() ? nullptr : Fake().message.c_str(); }

aclError aclrtMalloc(void** pointer, size_t size, aclrtMemMallocPolicy) {
  FAKE_TOLD("aclrtMalloc");
  if (size == 0) return Fail(kInvalid, "size is 0");
  const size_t bytes = (size + kRedzone + kAlignment - 1) / kAlignment * kAlignment;
  *pointer = std::aligned_alloc(kAlignment, bytes);
  std::memset(*pointer, kRed, bytes);
  Fake().allocations[reinterpret_cast<uintptr_t>(*pointer)] = size;
  fake::Line("aclrtMalloc")
      .Number("bytes", static_cast<long long>(size))
      .Number("memory", fake::Address(*pointer));
  return ACL_SUCCESS;
}
aclError aclrtFree(void* pointer) {
  if (Fake().allocations.erase(reinterpret_cast<uintptr_t>(pointer)) == 0)
    return Fail(kInvalid, "not allocated");
  size_t pending = 0;
  for (const auto& [handle, stream] : Fake().streams) pending += stream.queue.size();
  fake::Line("aclrtFree")
      .Number("memory", fake::Address(pointer))
      .Number("pending", static_cast<long long>(pending));
  std::free(pointer);
  return ACL_SUCCESS;
}
aclError aclrtMemcpyAsync(void* dst, size_t room, const void* src, size_t count, aclrtMemcpyKind,
                          aclrtStream stream) {
  if (count > room) return Fail(kInvalid, "copy is larger than its destination");
  return Enqueue(stream, [=] {
    fake::Line("copy").Number("bytes", static_cast<long long>(count));
    std::memcpy(dst, src, count);
    return aclError{ACL_SUCCESS};
  });
}
aclError aclrtCreateStream(aclrtStream* stream) {
  static int number = 0;
  *stream = new int(++number);
  Fake().streams.emplace(*stream, Stream{number, {}});
  return ACL_SUCCESS;
}
aclError aclrtSynchronizeStream(aclrtStream stream) {
  const auto found = Fake().streams.find(stream);
  if (found == Fake().streams.end())
    return stream == nullptr ? aclError{ACL_SUCCESS} : Fail(kInvalid, "no such stream");
  fake::Line("aclrtSynchronizeStream").Number("stream", found->second.number);
  while (!found->second.queue.empty()) {
    const auto task = std::move(found->second.queue.front());
    found->second.queue.pop_front();
    if (const aclError code = task(); code != ACL_SUCCESS) return code;
  }
  return ACL_SUCCESS;
}

aclError aclrtBinaryLoadFromFile(const char* path, aclrtBinaryLoadOptions*, aclrtBinHandle* handle) {
  FAKE_TOLD("aclrtBinaryLoadFromFile");
  fake::Line("aclrtBinaryLoadFromFile").Text("path", path);
  return LoadObject(path, handle);
}
aclError aclrtBinaryLoadFromData(const void* data, size_t length, const aclrtBinaryLoadOptions* options,
                                 aclrtBinHandle* handle) {
  if (options == nullptr || options->numOpt != 1 || options->options->type != ACL_RT_BINARY_LOAD_OPT_MAGIC) {
    return Fail(kInvalid, "the magic option is missing");
  }
  fake::Line("aclrtBinaryLoadFromData")
      .Number("bytes", static_cast<long long>(length))
      .Number("magic", options->options->value.magic);
  const int file = memfd_create("kernel", 0);
  if (file < 0 || write(file, data, length) != static_cast<ssize_t>(length))
    return Fail(kInvalid, "no memory file");
  return LoadObject("/proc/self/fd/" + std::to_string(file), handle);
}
aclError aclrtBinaryUnLoad(aclrtBinHandle handle) {
  fake::Line("aclrtBinaryUnLoad");
  Fake().binaries.remove_if([handle](const Binary& binary) { return &binary == handle; });
  return ACL_SUCCESS;
}
aclError aclrtBinaryGetFunction(const aclrtBinHandle handle, const char* name, aclrtFuncHandle* function) {
  auto* binary = static_cast<Binary*>(handle);
  if (dlsym(binary->handle, name) == nullptr) return Fail(kNotFound, std::string("no kernel ") + name);
  fake::Line("aclrtBinaryGetFunction").Text("kernel", name);
  Fake().functions.push_back({binary, name});
  *function = &Fake().functions.back();
  return ACL_SUCCESS;
}

aclError aclrtKernelArgsInit(aclrtFuncHandle, aclrtArgsHandle* handle) {
  *handle = &Fake().arguments.emplace_back();
  return ACL_SUCCESS;
}
aclError aclrtKernelArgsAppend(aclrtArgsHandle handle, void* bytes, size_t size,
                               aclrtParamHandle* parameter) {
  auto* arguments = static_cast<Arguments*>(handle);
  if (arguments->finalized) return Fail(kInvalid, "the arguments are final");
  const auto* first = static_cast<unsigned char*>(bytes);
  arguments->parameters.push_back({{first, first + size}, false});
  *parameter = &arguments->parameters.back();
  return ACL_SUCCESS;
}
aclError aclrtKernelArgsAppendPlaceHolder(aclrtArgsHandle handle, aclrtParamHandle* parameter) {
  auto* arguments = static_cast<Arguments*>(handle);
  if (arguments->finalized) return Fail(kInvalid, "the arguments are final");
  arguments->parameters.push_back({{}, true});
  *parameter = &arguments->parameters.back();
  return ACL_SUCCESS;
}
aclError aclrtKernelArgsGetPlaceHolderBuffer(aclrtArgsHandle handle, aclrtParamHandle place, size_t size,
                                             void** buffer) {
  if (static_cast<Arguments*>(handle)->finalized) return Fail(kInvalid, "the arguments are final");
  auto* parameter = static_cast<Parameter*>(place);
  parameter->bytes.resize(size);
  *buffer = parameter->bytes.data();
  return ACL_SUCCESS;
}
aclError aclrtKernelArgsFinalize(aclrtArgsHandle handle) {
  static_cast<Arguments*>(handle)->finalized = true;
  return ACL_SUCCESS;
}
aclError aclrtLaunchKernelWithConfig(aclrtFuncHandle handle, uint32_t blocks, aclrtStream stream,
                                     aclrtLaunchKernelCfg* config, aclrtArgsHandle args, void* reserve) {
  FAKE_TOLD("aclrtLaunchKernelWithConfig");
  const auto* function = static_cast<Function*>(handle);
  const auto* arguments = static_cast<Arguments*>(args);
  if (!arguments->finalized || blocks == 0 || reserve != nullptr) return Fail(kInvalid, "an invalid launch");
  const int number = ++Fake().launches;
  std::string parameters = "[", tiling;
  for (const Parameter& parameter : arguments->parameters) {
    if (parameter.is_placeholder) tiling = fake::Hex(parameter.bytes.data(), parameter.bytes.size());
    const std::string value =
        parameter.is_placeholder ? "\"tiling\"" : std::to_string(fake::Read<int64_t>(parameter.bytes.data()));
    parameters += (parameters.size() > 1 ? ", " : "") + value;
  }
  const auto known = Fake().streams.find(stream);
  fake::Line("launch")
      .Number("launch", number)
      .Text("kernel", function->name)
      .Number("blocks", blocks)
      .Number("stream", known != Fake().streams.end() ? known->second.number : 0)
      .Number("device", t_device)
      .Number("schem_mode", config != nullptr ? config->attrs[0].value.schemMode : 0)
      .Raw("parameters", parameters + "]")
      .Text("tiling", tiling);
  auto copy = std::make_shared<std::list<Parameter>>(arguments->parameters);
  return Enqueue(stream, [=] { return RunOnTwin(*function, *copy, blocks, number); });
}
}
