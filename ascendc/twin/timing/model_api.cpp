#include "timing/model_api.h"

#include <cstdio>

#include "timing/model.h"

using namespace tilewright::twin;
using namespace tilewright::twin::timing;

namespace {

thread_local std::string answer;
thread_local std::unique_ptr<Costs> costs;
thread_local std::unique_ptr<ModelRun> run;

int Refuse(const std::string& why) {
  answer = why;
  return 2;
}

}  // namespace

#define TW_EXPORT __attribute__((visibility("default")))

extern "C" {

TW_EXPORT int tw_model_begin(const tw_model_options* options) {
  tw_model_end();
  auto table = std::make_unique<Costs>();
  if (const std::string wrong = table->Override(options->constants); !wrong.empty()) return Refuse(wrong);
  std::vector<BlockClass> classes;
  for (uint32_t i = 0; i < options->block_count; ++i) {
    if (options->times[i] == 0)
      return Refuse("block " + std::to_string(options->blocks[i]) + " stands for 0 blocks");
    classes.push_back({options->blocks[i], options->times[i]});
  }
  costs = std::move(table);
  run = std::make_unique<ModelRun>(*costs, std::move(classes));
  run->Warm(options->warm);
  run->KeepTrace(options->trace_events);
  return 0;
}

TW_EXPORT int tw_model_settle(void) { return run == nullptr || run->Settle() ? 1 : 0; }

TW_EXPORT const char* tw_model_json(void) {
  if (run != nullptr) answer = run->Json();
  return answer.c_str();
}

TW_EXPORT int tw_model_trace(const char* path) {
  std::FILE* file = run != nullptr ? std::fopen(path, "w") : nullptr;
  if (file == nullptr) return 2;
  const std::string text = run->TraceJson();
  const bool whole = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  return std::fclose(file) == 0 && whole ? 0 : 2;
}

TW_EXPORT void tw_model_end(void) {
  run = nullptr;
  costs = nullptr;
}

TW_EXPORT const char* tw_model_constants(void) {
  static const std::string text = ConstantsJson();
  return text.c_str();
}

}  // extern "C"
