#include "flush.hpp"

#include <sched.h>

#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>

#include "errors.hpp"

namespace tw::bindings {
namespace {

constexpr int64_t kLine = 64;

std::mutex mutex;
std::unique_ptr<unsigned char[]> room;
int64_t room_bytes = 0;

std::vector<int> usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
    }
  }
  if (cpus.empty()) cpus.push_back(sched_getcpu());
  return cpus;
}

// Runs on `cpu` where the system allows it; leaves in `cpu` where it ran.
void rewrite(unsigned char* first, int64_t bytes, int* cpu) {
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(*cpu, &only);
  sched_setaffinity(0, sizeof only, &only);
  *cpu = sched_getcpu();
  for (int64_t i = 0; i < bytes; i += kLine) first[i] = static_cast<unsigned char>(first[i] + 1);
  asm volatile("" : : "r"(first) : "memory");
}

}  // namespace

std::vector<int> flush_caches(int64_t bytes) {
  if (bytes < 0) raise("UsageError", std::to_string(bytes) + " bytes to flush; accepted: 0 or more");
  const std::lock_guard<std::mutex> lock(mutex);
  std::vector<int> cpus = usable_cpus();
  const auto count = static_cast<int64_t>(cpus.size());
  const int64_t share = (bytes / count + kLine - 1) / kLine * kLine;
  if (share * count > room_bytes) {
    room.reset(new unsigned char[static_cast<size_t>(share * count)]);
    room_bytes = share * count;
  }
  std::vector<std::thread> threads;
  threads.reserve(cpus.size());
  try {
    for (size_t i = 0; i < cpus.size(); ++i) {
      threads.emplace_back(rewrite, room.get() + static_cast<int64_t>(i) * share, share, &cpus[i]);
    }
  } catch (const std::system_error& error) {
    for (std::thread& thread : threads) thread.join();
    raise("Unavailable", std::string("no thread to evict a core's caches: ") + error.what());
  }
  for (std::thread& thread : threads) thread.join();
  return cpus;
}

}  // namespace tw::bindings
