#include "timing/model_api.h"

#include <cstdio>

#include "timing/model.h"

using namespace tilewright::twin;
using namespace tilewright::twin::timing;

namespace {

thread_local std::string answer;

constexpr uint32_t kPasses = 6;
constexpr uint32_t kTraceEvents = 20000;

int Refuse(const std::string& why) {
  answer = why;
  return 2;
}

}  // namespace

#define TW_EXPORT __attribute__((visibility("default")))

extern "C" {

TW_EXPORT int tw_model_run(const tw_model_launch* model) {
  answer.clear();
  Costs costs;
  if (const std::string wrong = costs.Override(model->constants); !wrong.empty()) return Refuse(wrong);
  tw_twin_launch launch = *model->launch;
  launch.flags |= TW_TWIN_SKIP_DATA;
  std::vector<BlockClass> classes;
  for (uint32_t i = 0; i < model->block_count; ++i) {
    if (model->blocks[i] >= launch.block_dim || model->times[i] == 0)
      return Refuse("block " + std::to_string(model->blocks[i]) + " times " +
                    std::to_string(model->times[i]) + " in a launch of " + std::to_string(launch.block_dim) +
                    " blocks");
    classes.push_back({model->blocks[i], model->times[i]});
  }
  if (model->block_count == 0)
    for (uint32_t i = 0; i < launch.block_dim; ++i) classes.push_back({i, 1});
  ModelRun run(costs, std::move(classes));
  run.Warm(model->warm);
  const uint32_t events = model->trace_events != 0 ? model->trace_events : kTraceEvents;
  run.KeepDetails(model->trace_path != nullptr ? events : 0, true);
  const uint32_t passes = model->passes != 0 ? model->passes : kPasses;
  int status = 0;
  tw_twin_result* result = nullptr;
  for (uint32_t pass = 0; pass < passes; ++pass) {
    if (result != nullptr) tw_twin_result_free(result);
    result = nullptr;
    launch.result = &result;
    status = tw_twin_run(&launch);
    if (status == 2) return 2;
    if (run.Settle()) break;
  }
  const std::string json = run.Json();
  answer = json.substr(0, json.size() - 1) + ", \"launch\": " + tw_twin_result_json(result) + "}";
  tw_twin_result_free(result);
  if (model->trace_path != nullptr) {
    std::FILE* file = std::fopen(model->trace_path, "w");
    if (file == nullptr) return Refuse(std::string("cannot write the trace to '") + model->trace_path + "'");
    const std::string text = run.TraceJson();
    std::fwrite(text.data(), 1, text.size(), file);
    std::fclose(file);
  }
  return 0;
}

TW_EXPORT const char* tw_model_json(void) { return answer.c_str(); }

TW_EXPORT const char* tw_model_constants(void) {
  static const std::string text = ConstantsJson();
  return text.c_str();
}

}  // extern "C"
