#include "timing.hpp"

#include <pybind11/pybind11.h>
#include <time.h>

#include <string>

#include "errors.hpp"
#include "flush.hpp"

namespace tw::bindings {
namespace {

constexpr int64_t kSignalCheckNs = 50'000'000;

int64_t now_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t{1'000'000'000} * t.tv_sec + t.tv_nsec;
}

class Timer {
 public:
  Timer(int count, int64_t flush_bytes, int batch) : flush_bytes_(flush_bytes), batch_(batch) {
    if (count < 0 || batch < 1 || flush_bytes < 0) {
      raise("UsageError", "count " + std::to_string(count) + ", batch " + std::to_string(batch) +
                              ", flush_bytes " + std::to_string(flush_bytes) +
                              "; accepted: 0 or more, 1 or more, 0 or more");
    }
  }

  int64_t sample(const Prepared& call) {
    if (flush_bytes_ > 0) flush_caches(flush_bytes_);
    const int64_t start = now_ns();
    for (int i = 0; i < batch_; ++i) call.run();
    const int64_t end = now_ns();
    if (end - checked_ > kSignalCheckNs) check_signals(end);
    return end - start;
  }

 private:
  // Ctrl-C reaches Python between samples, never inside one.
  void check_signals(int64_t now) {
    checked_ = now;
    const pybind11::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
  }

  int64_t flush_bytes_;
  int batch_;
  int64_t checked_ = now_ns();
};

}  // namespace

std::vector<int64_t> time_calls(const Prepared& call, int count, int64_t flush_bytes, int batch) {
  Timer timer(count, flush_bytes, batch);
  std::vector<int64_t> samples(static_cast<size_t>(count));
  for (int64_t& sample : samples) sample = timer.sample(call);
  return samples;
}

std::pair<std::vector<int64_t>, std::vector<int64_t>> time_pair(const Prepared& a, const Prepared& b,
                                                                int blocks, int64_t flush_bytes, int batch) {
  Timer timer(blocks, flush_bytes, batch);
  std::pair<std::vector<int64_t>, std::vector<int64_t>> samples;
  samples.first.reserve(2 * static_cast<size_t>(blocks));
  samples.second.reserve(2 * static_cast<size_t>(blocks));
  for (int i = 0; i < blocks; ++i) {
    samples.first.push_back(timer.sample(a));
    samples.second.push_back(timer.sample(b));
    samples.second.push_back(timer.sample(b));
    samples.first.push_back(timer.sample(a));
  }
  return samples;
}

}  // namespace tw::bindings
