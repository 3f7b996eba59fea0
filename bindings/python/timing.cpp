#include "timing.hpp"

#include <fcntl.h>
#include <pybind11/pybind11.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <string>

#include "errors.hpp"
#include "flush.hpp"

namespace tw::bindings {
namespace {

constexpr int64_t kSignalCheckNs = 50'000'000;
// A reading of clock and run queue takes 1 or 2 us; one that took longer was interrupted.
constexpr int64_t kReadingNs = 20'000;
constexpr int kReadings = 100;

int64_t now_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t{1'000'000'000} * t.tv_sec + t.tv_nsec;
}

// What the calling thread has waited while ready to run: the second number of its schedstat.
class RunQueue {
 public:
  RunQueue() : file_(open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC)) {
    if (file_ >= 0 && waited() < 0) forget();
  }
  ~RunQueue() { forget(); }
  RunQueue(const RunQueue&) = delete;
  RunQueue& operator=(const RunQueue&) = delete;

  bool tells() const { return file_ >= 0; }

  // In ns; below 0 where the file holds something else, or all zeros because the kernel keeps no such record.
  int64_t waited() const {
    char text[96];
    const ssize_t size = pread(file_, text, sizeof text - 1, 0);
    if (size <= 0) return -1;
    text[size] = '\0';
    char* rest = text;
    const int64_t ran = std::strtoll(text, &rest, 10);
    if (rest == text) return -1;
    const char* second = rest;
    const int64_t waited = std::strtoll(second, &rest, 10);
    const int64_t slices = std::strtoll(rest, nullptr, 10);
    return rest == second || (ran == 0 && waited == 0 && slices == 0) ? -1 : waited;
  }

 private:
  void forget() {
    if (file_ >= 0) close(file_);
    file_ = -1;
  }

  int file_;
};

struct Reading {
  int64_t before, waited, after;
};

// Clock, run queue, clock.
Reading read(const RunQueue& queue) {
  const int64_t before = now_ns(), waited = queue.waited();
  return {before, waited, now_ns()};
}

bool whole(const Reading& reading) { return reading.after - reading.before < kReadingNs; }

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

  // Time and wait of a sample.
  std::pair<int64_t, int64_t> sample(const Prepared& call, const RunQueue& queue) {
    Reading start{}, end{};
    for (int i = 0; i < kReadings; ++i) {
      if (flush_bytes_ > 0) flush_caches(flush_bytes_);
      start = read(queue);
      if (!whole(start) && i + 1 < kReadings) continue;
      for (int j = 0; j < batch_; ++j) call.run();
      end = read(queue);
      if (end.before - checked_ > kSignalCheckNs) check_signals(end.before);
      if (whole(end)) break;
    }
    return {end.before - start.after, end.waited - start.waited};
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

std::pair<std::vector<int64_t>, std::vector<int64_t>> time_and_waits(const Prepared& call, int count,
                                                                     int64_t flush_bytes, int batch) {
  const RunQueue queue;
  if (!queue.tells()) return {time_calls(call, count, flush_bytes, batch), {}};
  Timer timer(count, flush_bytes, batch);
  std::pair<std::vector<int64_t>, std::vector<int64_t>> samples;
  for (int i = 0; i < count; ++i) {
    const auto [took, waited] = timer.sample(call, queue);
    samples.first.push_back(took);
    samples.second.push_back(waited);
  }
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

double core_mhz() {
  constexpr int kRounds = 1000, kStepsEach = 16, kCyclesEach = 3, kTries = 3;
  int64_t best = std::numeric_limits<int64_t>::max();
  for (int i = 0; i < kTries; ++i) {
    uint64_t value = 3;
    const int64_t start = now_ns();
    for (int j = 0; j < kRounds; ++j) asm volatile(".rept 16\n\timul %0, %0\n\t.endr" : "+r"(value));
    best = std::min(best, now_ns() - start);
  }
  return 1e3 * kRounds * kStepsEach * kCyclesEach / static_cast<double>(best);
}

}  // namespace tw::bindings
