// Launching: find the kernel, give each block a core, run them on host threads, gather what was found.
#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>

#include "host_launch.h"
#include "machine.h"
#include "run.h"
#include "timing/model.h"
#include "twin.h"

struct tw_twin_result {
  std::vector<tilewright::twin::Finding> findings;
  std::vector<tw_twin_finding> views;
  tilewright::twin::Counts counts;
  std::vector<std::string> printed;
  std::string json;
};

namespace tilewright::twin {

namespace {

thread_local std::string last_error;

struct Refusal {
  std::string why;
};

class TraceSink : public RecordSink {
 public:
  TraceSink(const char* path, bool append) : file_(std::fopen(path, append ? "a" : "w")) {
    if (file_ == nullptr) throw Refusal{std::string("cannot write the trace to '") + path + "'"};
  }
  ~TraceSink() override { std::fclose(file_); }
  void OnRecord(int core, const Record& record) override {
    const std::string line = RecordJson(core / kCoresOfGroup, record) + "\n";
    const std::lock_guard<std::mutex> lock(mutex_);
    std::fwrite(line.data(), 1, line.size(), file_);
  }

 private:
  std::FILE* file_;
  std::mutex mutex_;
};

// Integer and pointer arguments and float arguments travel in separate register files on x86-64 and AArch64
// Linux, and a callee that takes fewer ignores the rest; so one signature calls every kernel with up to 8
// floats.
using Word = uint64_t;
using AnyKernel = void (*)(Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, Word,
                           Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, double, double, double,
                           double, double, double, double, double);

struct Arguments {
  void* symbol;
  Word words[TW_TWIN_MAX_ARGS] = {};
  double floats[8] = {};
};

void Call(const Arguments& arguments) {
  const auto& [symbol, w, f] = arguments;
  AnyKernel kernel;
  std::memcpy(&kernel, &symbol, sizeof kernel);
  kernel(w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8], w[9], w[10], w[11], w[12], w[13], w[14], w[15],
         w[16], w[17], w[18], w[19], w[20], w[21], w[22], w[23], f[0], f[1], f[2], f[3], f[4], f[5], f[6],
         f[7]);
}

std::string OwnPath() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(&tw_twin_run), &info) == 0)
    throw Refusal{"cannot locate the twin's own library"};
  return info.dli_fname;
}

void* FindKernel(const tw_twin_launch& launch) {
  if (launch.kernel == nullptr || launch.kernel[0] == '\0') throw Refusal{"no kernel named"};
  std::string path = OwnPath();
  if (launch.library != nullptr && launch.library[0] != '\0') {
    // However this library was loaded, the kernel's must find its symbols.
    dlopen(path.c_str(), RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL);
    path = launch.library;
  }
  // Stays open: kernels live as long as the process.
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw Refusal{std::string("cannot load '") + path + "': " + dlerror()};
  void* symbol = dlsym(handle, launch.kernel);
  if (symbol == nullptr) throw Refusal{std::string("no kernel '") + launch.kernel + "' in '" + path + "'"};
  return symbol;
}

// A kernel that is `given` as a call has its arguments; then launch.args only names buffers.
Arguments Bind(const tw_twin_launch& launch, const KernelCall* given, Machine& machine) {
  Arguments out{};
  uint64_t unbacked = uint64_t{1} << 46;  // above user space's heap and below nothing: never dereferenced
  uint32_t words = 0, floats = 0;
  if (given == nullptr && launch.arg_count > TW_TWIN_MAX_ARGS)
    throw Refusal{std::to_string(launch.arg_count) + " arguments, at most " +
                  std::to_string(TW_TWIN_MAX_ARGS) + " are passed"};
  const auto pass = [&](Word word) {
    if (given == nullptr) out.words[words++] = word;
  };
  for (uint32_t i = 0; i < launch.arg_count; ++i) {
    const tw_twin_arg& arg = launch.args[i];
    const std::string name = arg.name != nullptr ? arg.name : "argument " + std::to_string(i);
    if (arg.kind == TW_TWIN_FLOAT) {
      if (floats == 8) throw Refusal{"at most 8 float arguments are passed"};
      std::memcpy(&out.floats[floats++], &arg.value, sizeof(double));
    } else if (arg.kind == TW_TWIN_SCALAR) {
      pass(arg.value);
    } else if (arg.data != nullptr || arg.bytes == 0) {
      const auto base = reinterpret_cast<uintptr_t>(arg.data);
      if (arg.data != nullptr) machine.buffers.push_back({name, base, arg.bytes, true});
      pass(base);
    } else if (machine.options.skip_data) {
      machine.buffers.push_back({name, unbacked, arg.bytes, false});
      pass(unbacked);
      unbacked += (arg.bytes + 0xfffff) & ~uint64_t{0xfff};
    } else {
      throw Refusal{"'" + name + "' has no data; only a run that skips data may leave it out"};
    }
  }
  return out;
}

// The same line on several blocks is one finding, that of the lowest block.
void MergeFindings(std::vector<Finding>& findings) {
  std::stable_sort(findings.begin(), findings.end(),
                   [](const Finding& a, const Finding& b) { return a.block < b.block; });
  std::vector<Finding> merged;
  for (Finding& f : findings) {
    const auto same = std::find_if(merged.begin(), merged.end(), [&f](const Finding& g) {
      return g.kind == f.kind && g.at.line == f.at.line && g.mem == f.mem && g.other.line == f.other.line &&
             g.missing == f.missing && std::strcmp(g.at.file, f.at.file) == 0;
    });
    if (same == merged.end())
      merged.push_back(std::move(f));
    else
      same->count += f.count;
  }
  findings = std::move(merged);
}

void SetSchedule(const tw_twin_launch& launch, Options& options) {
  const std::string name = launch.schedule != nullptr ? launch.schedule : "program";
  if (name == "random")
    options.schedule = Schedule::Random;
  else if (name == "timeline")
    options.schedule = Schedule::Timeline;
  else if (name != "program")
    throw Refusal{"unknown schedule '" + name + "', known are program, timeline, random"};
  options.seed = launch.seed;
  options.gm_accesses = launch.gm_accesses;
  options.auto_sync = (launch.flags & TW_TWIN_AUTO_SYNC) != 0;
  options.hazards = !options.skip_data && (launch.flags & TW_TWIN_NO_HAZARDS) == 0;
  if (launch.task_type > static_cast<uint32_t>(TaskType::Mix12))
    throw Refusal{"task_type " + std::to_string(launch.task_type) + ", allowed are 0..6"};
  options.task_type = static_cast<TaskType>(launch.task_type);
}

int Run(const tw_twin_launch& launch, const KernelCall* given) {
  if (launch.abi_version != TW_TWIN_ABI_VERSION)
    throw Refusal{"abi_version " + std::to_string(launch.abi_version) + ", this twin speaks " +
                  std::to_string(TW_TWIN_ABI_VERSION)};
  if (launch.block_dim == 0 || launch.block_dim > 65535)
    throw Refusal{"block_dim " + std::to_string(launch.block_dim) + ", allowed are 1..65535"};
  Machine machine{};
  machine.soc = FindSoc(launch.soc);
  if (machine.soc == nullptr)
    throw Refusal{std::string("unknown soc '") + (launch.soc != nullptr ? launch.soc : "") +
                  "', known are 910b1, 910b2, 910b3, 910b4, 910_93"};
  machine.options.skip_data = (launch.flags & TW_TWIN_SKIP_DATA) != 0;
  if (launch.max_findings != 0) machine.options.max_findings = launch.max_findings;
  machine.block_dim = launch.block_dim;
  SetSchedule(launch, machine.options);
  void* symbol = given == nullptr ? FindKernel(launch) : nullptr;
  Arguments args = Bind(launch, given, machine);
  args.symbol = symbol;
  std::unique_ptr<TraceSink> trace;
  if (launch.trace_path != nullptr)
    trace = std::make_unique<TraceSink>(launch.trace_path, (launch.flags & TW_TWIN_APPEND_TRACE) != 0);
  machine.sink = trace.get();
  if (timing::ModelRun* const model = timing::ModelRun::Current()) {
    model->Begin(machine);
    machine.sink = model;
    machine.chosen = model->blocks();
    for (const uint32_t block : machine.chosen)
      if (block >= launch.block_dim)
        throw Refusal{"block " + std::to_string(block) + " is not one of " +
                      std::to_string(launch.block_dim)};
  }

  auto result = std::make_unique<tw_twin_result>();
  const auto kernel = [&] { given != nullptr ? given->call(given->context) : Call(args); };
  Outcome outcome = RunCores(machine, kernel, launch.threads);
  result->findings = std::move(outcome.findings);
  result->counts = outcome.counts;
  result->printed = std::move(outcome.printed);

  MergeFindings(result->findings);
  for (const Finding& f : result->findings) {
    result->views.push_back({Name(f.kind), f.message.c_str(), f.at.file, f.at.line, f.block, Name(f.pipe),
                             f.has_memory ? Name(f.mem) : "", f.begin, f.end, f.allowed_begin, f.allowed_end,
                             f.count, f.other.file, f.other.line,
                             f.other.file != nullptr ? Name(f.other_pipe) : "", f.missing.c_str(), f.core});
  }
  const bool ok = result->findings.empty();
  result->json = "{\"ok\": " + std::string(ok ? "true" : "false") + ", \"soc\": \"" + machine.soc->name +
                 "\", \"blocks\": " + std::to_string(launch.block_dim) +
                 ", \"cores\": " + std::to_string(outcome.cores) + ", \"kind\": \"" + outcome.kind +
                 "\", \"cycles\": " + std::to_string(static_cast<uint64_t>(outcome.cycles)) +
                 ", \"unchecked_gm\": " + std::to_string(outcome.unchecked_gm) +
                 ", \"inserted_syncs\": " + std::to_string(outcome.inserted_syncs) +
                 ", \"printed\": " + TextsJson(result->printed) +
                 ", \"findings\": " + FindingsJson(result->findings) + ", " +
                 CountsJson(result->counts).substr(1);
  if (launch.result != nullptr) *launch.result = result.release();
  return ok ? 0 : 1;
}

}  // namespace

int RunLaunch(const tw_twin_launch& launch, const KernelCall* given) {
  last_error.clear();
  try {
    return Run(launch, given);
  } catch (const Refusal& refusal) {
    last_error = refusal.why;
  } catch (const std::exception& error) {
    last_error = error.what();
  }
  return 2;
}

}  // namespace tilewright::twin

using namespace tilewright::twin;

#define TW_EXPORT __attribute__((visibility("default")))

extern "C" {

TW_EXPORT int tw_twin_run(const tw_twin_launch* launch) { return RunLaunch(*launch, nullptr); }

TW_EXPORT const char* tw_twin_error(void) { return last_error.c_str(); }

TW_EXPORT size_t tw_twin_result_findings(const tw_twin_result* result, const tw_twin_finding** findings) {
  *findings = result->views.data();
  return result->views.size();
}

TW_EXPORT uint64_t tw_twin_result_count(const tw_twin_result* result, const char* pipe, const char* op) {
  uint64_t total = 0;
  for (int p = 0; p < kPipes; ++p)
    for (int o = 0; o < kSlots; ++o)
      if ((pipe == nullptr || std::strcmp(pipe, Name(static_cast<Pipe>(p))) == 0) &&
          (op == nullptr || std::strcmp(op, SlotName(o)) == 0))
        total += result->counts.issued[p][o];
  return total;
}

TW_EXPORT uint64_t tw_twin_result_peak(const tw_twin_result* result, const char* memory) {
  for (int m = 1; m < kMems; ++m)
    if (std::strcmp(memory, Name(static_cast<Mem>(m))) == 0) return result->counts.peak[m];
  return 0;
}

TW_EXPORT const char* tw_twin_result_json(const tw_twin_result* result) { return result->json.c_str(); }
TW_EXPORT void tw_twin_result_free(tw_twin_result* result) { delete result; }

TW_EXPORT const char* tw_twin_soc_json(const char* soc) {
  static std::mutex mutex;
  static std::map<std::string, std::string> made;
  const Soc* found = FindSoc(soc);
  if (found == nullptr) return nullptr;
  const std::lock_guard<std::mutex> lock(mutex);
  std::string& text = made[found->name];
  if (text.empty()) text = SocJson(*found);
  return text.c_str();
}

}  // extern "C"
