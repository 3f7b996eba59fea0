#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include "launcher/dl.hpp"
#include "launcher/driver.hpp"
#include "launcher/fit.hpp"
#include "launcher/sha256.hpp"
#include "launcher/tw_gpu.h"

namespace tilewright::launch {
namespace {

// A binary on one device. The bytes stay: a driver may refer to them for as long as the module lives.
struct Loaded {
  std::mutex once;  // not std::call_once: its symbols would tie the bundle to a newer glibc
  bool ready = false;
  std::vector<unsigned char> bytes;
  void* function = nullptr;
};

struct State {
  std::mutex mutex;
  std::string directory;
  std::map<std::pair<const Kernel*, int>, std::unique_ptr<Loaded>> loaded;
  std::map<std::pair<const Driver*, int>, std::string> archs;
};

State& Shared() {
  static State state;
  return state;
}

std::string Directory() {
  {
    const std::lock_guard lock(Shared().mutex);
    if (!Shared().directory.empty()) return Shared().directory;
  }
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(&tw_gpu_launch), &info) == 0 || info.dli_fname == nullptr) return ".";
  const std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

Driver& DriverOf(Api api) { return api == Api::kCuda ? CudaDriver() : HipDriver(); }

template <typename Rows, typename Text>
std::string Listed(const Rows& rows, Text text) {
  std::vector<std::string> names;
  for (const auto& row : rows) {
    std::string name = text(row);
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(std::move(name));
  }
  std::string out;
  for (const std::string& name : names) out += (out.empty() ? "" : ", ") + name;
  return out.empty() ? "none" : out;
}

std::string ArchOf(Driver& driver, int device) {
  State& state = Shared();
  const std::lock_guard lock(state.mutex);
  std::string& arch = state.archs[{&driver, device}];
  if (arch.empty()) arch = driver.Arch(device);
  return arch;
}

void CheckDevice(Driver& driver, int device) {
  const int count = driver.DeviceCount();
  if (count == 0)
    throw LaunchError(Failure::kNoDevice, std::string("the ") + driver.name() + " driver has no device");
  if (device < 0 || device >= count) {
    throw LaunchError(Failure::kNoDevice, "device " + std::to_string(device) + " does not exist; " +
                                              std::to_string(count) + " " + driver.name() +
                                              " device(s) are here");
  }
}

// What a call resolves to.
struct Choice {
  const Entry* entry;
  Driver* driver;
  Bound bound;
};

std::vector<const Entry*> Candidates(const char* family, std::string_view wanted) {
  const Table& table = GeneratedTable();
  const std::vector<Entry> all(table.entries, table.entries + table.count);
  std::vector<const Entry*> of_family, out;
  for (int32_t i = 0; i < table.count; ++i) {
    if (family != nullptr && std::strcmp(table.entries[i].family, family) == 0)
      of_family.push_back(&table.entries[i]);
  }
  if (of_family.empty()) {
    throw LaunchError(
        Failure::kRefusedCall,
        std::string("no GPU binary of family '") + (family ? family : "") +
            "'; families here: " + Listed(all, [](const Entry& e) { return std::string(e.family); }));
  }
  for (const Entry* entry : of_family) {
    const bool whole_api = wanted == "auto" || wanted == (entry->api == Api::kCuda ? "cuda" : "hip");
    if (whole_api || wanted == entry->id) out.push_back(entry);
  }
  if (out.empty()) {
    throw LaunchError(Failure::kRefusedCall,
                      "no GPU binary '" + std::string(wanted) + "' of family '" + family +
                          "'; accepted: auto, cuda, " + "hip, " +
                          Listed(of_family, [](const Entry* e) { return std::string(e->id); }));
  }
  return out;
}

// The first vendor among the candidates whose driver opens and has a device.
Driver& FirstDriver(const std::vector<const Entry*>& candidates) {
  std::string reasons;
  Failure failure = Failure::kNoDriver;
  for (const Api api : {Api::kCuda, Api::kHip}) {
    if (std::none_of(candidates.begin(), candidates.end(), [api](const Entry* e) { return e->api == api; }))
      continue;
    try {
      Driver& driver = DriverOf(api);
      if (driver.DeviceCount() > 0) return driver;
      failure = Failure::kNoDevice;
      reasons +=
          (reasons.empty() ? "" : "; ") + std::string("the ") + driver.name() + " driver has no device";
    } catch (const LaunchError& error) {
      reasons += (reasons.empty() ? "" : "; ") + std::string(error.what());
    }
  }
  throw LaunchError(failure, reasons);
}

Choice Choose(const tw_call& call, int device, const char* family, const char* entry) {
  const std::string_view wanted = entry == nullptr || *entry == '\0' ? "auto" : entry;
  std::vector<const Entry*> candidates = Candidates(family, wanted);
  Driver& driver = FirstDriver(candidates);
  CheckDevice(driver, device);
  const std::string arch = ArchOf(driver, device);
  std::vector<const Entry*> runnable;
  for (const Entry* e : candidates) {
    if (e->api == driver.api() && driver.Runs(e->arch, arch)) runnable.push_back(e);
  }
  if (runnable.empty()) {
    throw LaunchError(Failure::kUnsupportedDevice,
                      std::string(family) + ": device " + std::to_string(device) + " is " + driver.name() +
                          ":" + arch + "; binaries are here for " +
                          Listed(candidates, [](const Entry* e) { return std::string(e->target); }));
  }
  Choice choice{nullptr, &driver, {}};
  const Entry* nearest = runnable.front();
  Stage farthest = Stage::kTensors;
  for (const Entry* e : runnable) {
    const Stage stage = Fit(*e, call, choice.bound);
    if (stage == Stage::kFits) {
      choice.entry = e;
      return choice;
    }
    if (stage > farthest) nearest = e, farthest = stage;
  }
  std::string why;
  Fit(*nearest, call, choice.bound, &why);
  throw LaunchError(Failure::kRefusedCall,
                    std::string("no GPU binary takes this call; nearest is ") + nearest->id + ": " + why);
}

void LoadInto(Loaded& slot, const Entry& entry, const Kernel& kernel, Driver& driver, int device) {
  const unsigned char* image = kernel.image;
  size_t size = kernel.image_size;
  std::string from = std::string("embedded ") + kernel.binary;
  if (image == nullptr) {
    from = Directory() + "/" + kernel.binary;
    std::ifstream file(from, std::ios::binary);
    if (!file) {
      throw LaunchError(Failure::kMissingBinary,
                        std::string(entry.id) + ": its binary " + from + " cannot be read");
    }
    slot.bytes.assign(std::istreambuf_iterator<char>(file), {});
    image = slot.bytes.data();
    size = slot.bytes.size();
  }
  const std::string digest = Sha256(image, size);
  if (digest != kernel.sha256) {
    throw LaunchError(Failure::kBadBinary, std::string(entry.id) + ": " + from +
                                               " is not the file that was shipped (sha256 " + digest +
                                               ", the table says " + kernel.sha256 + ")");
  }
  slot.function = driver.Load(device, image, kernel.symbol, kernel.shared_bytes);
}

void* FunctionOn(const Entry& entry, const Kernel& kernel, Driver& driver, int device) {
  Loaded* slot = nullptr;
  {
    State& state = Shared();
    const std::lock_guard lock(state.mutex);
    std::unique_ptr<Loaded>& place = state.loaded[{&kernel, device}];
    if (place == nullptr) place = std::make_unique<Loaded>();
    slot = place.get();
  }
  const std::lock_guard once(slot->once);
  if (!slot->ready) {
    LoadInto(*slot, entry, kernel, driver, device);  // a failed load throws: the next launch tries again
    slot->ready = true;
  }
  return slot->function;
}

// Stream-ordered scratch that goes back after the launch is queued.
class Scratch {
 public:
  Scratch(Driver& driver, size_t bytes, void* stream) : driver_(driver), stream_(stream) {
    if (bytes > 0) memory_ = driver.Allocate(bytes, stream);
  }
  ~Scratch() {
    try {
      if (memory_ != nullptr) driver_.Release(memory_, stream_);
    } catch (const LaunchError&) {
      // The kernel is queued already; a failed release only leaks.
    }
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  void* memory() const { return memory_; }

 private:
  Driver& driver_;
  void* stream_;
  void* memory_ = nullptr;
};

// The grid of a kernel; false where it is empty.
bool GridOf(const Entry& entry, const Kernel& kernel, const Driver& driver, const Bound& bound,
            Launch& launch) {
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t blocks = kernel.grid[axis](bound.dims);
    if (blocks > driver.GridLimit(axis, kernel.block)) {
      throw LaunchError(Failure::kRefusedCall, std::string(entry.id) + ": the grid has " +
                                                   std::to_string(blocks) + " blocks along " + "xyz"[axis] +
                                                   "; at most " +
                                                   std::to_string(driver.GridLimit(axis, kernel.block)));
    }
    if (blocks <= 0) return false;
    launch.grid[axis] = static_cast<uint32_t>(blocks);
  }
  return true;
}

void Start(const Kernel& kernel, const tw_call& call, const Bound& bound, Driver& driver, Launch& launch) {
  int64_t programs = 1;
  for (const uint32_t blocks : launch.grid) programs = Mul(programs, blocks);
  const Scratch scratch(driver, static_cast<size_t>(Mul(programs, kernel.scratch_bytes)), launch.stream);
  // Drivers read each parameter's own size from the front of its slot (little-endian).
  uint64_t slots[kMaxArgs + 2] = {};
  void* parameters[kMaxArgs + 2];
  int count = 0;
  for (; count < kernel.arg_count; ++count) {
    slots[count] = static_cast<uint64_t>(ArgValue(kernel.args[count], call, bound));
  }
  if (kernel.hidden_pointers) {
    slots[count++] = reinterpret_cast<uintptr_t>(scratch.memory());
    slots[count++] = 0;
  }
  for (int i = 0; i < count; ++i) parameters[i] = &slots[i];
  launch.parameters = parameters;
  driver.Start(launch);
}

void Run(const tw_call& call, void* stream, int device, const char* family, const char* wanted) {
  Choice choice = Choose(call, device, family, wanted);
  const Entry& entry = *choice.entry;
  Driver& driver = *choice.driver;
  // Everything that can be refused is, and every binary loaded, before the first kernel starts.
  std::vector<std::pair<const Kernel*, Launch>> ready;
  for (int32_t i = 0; i < entry.kernel_count; ++i) {
    const Kernel& kernel = entry.kernels[i];
    Launch launch{nullptr, {}, kernel.block, kernel.shared_bytes, stream, nullptr};
    if (GridOf(entry, kernel, driver, choice.bound, launch)) ready.emplace_back(&kernel, launch);
  }
  if (ready.empty()) return;

  const Driver::Scope scope(driver, device);
  for (auto& [kernel, launch] : ready) launch.function = FunctionOn(entry, *kernel, driver, device);
  const Scratch workspace(driver, static_cast<size_t>(entry.workspace(choice.bound.dims)), stream);
  choice.bound.workspace = reinterpret_cast<intptr_t>(workspace.memory());
  for (auto& [kernel, launch] : ready) Start(*kernel, call, choice.bound, driver, launch);
}

// As much of a text as there is room for, with its end.
void Copy(const char* text, char* to, size_t room) {
  if (to == nullptr || room == 0) return;
  const size_t size = std::min(std::strlen(text), room - 1);
  std::memcpy(to, text, size);
  to[size] = '\0';
}

void Say(const tw_call* call, const char* sentence) {
  if (call != nullptr) Copy(sentence, call->error, call->error_size);
}

int StatusOf(Failure failure) { return failure <= Failure::kRefusedCall ? TW_REFUSED : TW_FAILED; }

std::string NameOf(const char* api, int device) {
  const std::string_view wanted = api != nullptr ? api : "";
  if (wanted != "cuda" && wanted != "hip") {
    throw LaunchError(Failure::kRefusedCall,
                      "no driver is called '" + std::string(wanted) + "'; accepted: cuda, hip");
  }
  Driver& driver = DriverOf(wanted == "cuda" ? Api::kCuda : Api::kHip);
  CheckDevice(driver, device);
  return std::string(driver.name()) + ":" + ArchOf(driver, device);
}

template <typename Body>
int Guarded(const tw_call* call, Body body) {
  try {
    if (call == nullptr) return TW_REFUSED;
    body();
    return TW_OK;
  } catch (const LaunchError& error) {
    Say(call, error.what());
    return StatusOf(error.failure());
  } catch (const std::exception& error) {
    Say(call, error.what());
    return TW_FAILED;
  }
}

}  // namespace
}  // namespace tilewright::launch

#define TW_EXPORT __attribute__((visibility("default")))

extern "C" {

TW_EXPORT int tw_gpu_launch(const tw_call* call, void* stream, int32_t device, const char* family,
                            const char* entry) {
  return tilewright::launch::Guarded(call,
                                     [&] { tilewright::launch::Run(*call, stream, device, family, entry); });
}

TW_EXPORT int tw_gpu_choose(const tw_call* call, int32_t device, const char* family, const char* entry,
                            char* id, size_t id_size) {
  return tilewright::launch::Guarded(call, [&] {
    const tilewright::launch::Choice choice = tilewright::launch::Choose(*call, device, family, entry);
    tilewright::launch::Copy(choice.entry->id, id, id_size);
  });
}

TW_EXPORT int tw_gpu_device(const char* api, int32_t device, char* text, size_t text_size) {
  using namespace tilewright::launch;
  try {
    Copy(NameOf(api, device).c_str(), text, text_size);
    return TW_OK;
  } catch (const LaunchError& error) {
    Copy(error.what(), text, text_size);
    return StatusOf(error.failure());
  } catch (const std::exception& error) {
    Copy(error.what(), text, text_size);
    return TW_FAILED;
  }
}

TW_EXPORT void tw_gpu_set_directory(const char* path) {
  const std::lock_guard lock(tilewright::launch::Shared().mutex);
  tilewright::launch::Shared().directory = path != nullptr ? path : "";
}

TW_EXPORT int32_t tw_gpu_entry_count(void) { return tilewright::launch::GeneratedTable().count; }

TW_EXPORT const char* tw_gpu_entry_id(int32_t index) {
  const tilewright::launch::Table& table = tilewright::launch::GeneratedTable();
  return index >= 0 && index < table.count ? table.entries[index].id : nullptr;
}
}
