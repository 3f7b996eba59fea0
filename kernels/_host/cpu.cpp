#include "_host/cpu.hpp"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "_host/export.hpp"

namespace tw {
namespace {

constexpr const char* kNames[kLevelCount] = {"scalar", "avx2", "avx2vnni", "avx512", "amx"};
constexpr int kUnforced = -1;

struct Detected {
  bool usable[kLevelCount] = {};
  char list[64] = {};
  Level best = Level::scalar;
  bool chosen = false;
  Level choice = Level::scalar;
  char error[192] = {};
};

#ifndef TW_EMULATE
// AMX: the instructions, and leave from the system to use its large registers. Linux grants it for the whole
// process, once; it refuses where some thread's signal stack is too small for them.
bool tiles_usable() {
#if defined(__x86_64__) && defined(__linux__)
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25;
  if ((edx & (kBf16 | kTile | kInt8)) != (kBf16 | kTile | kInt8)) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

bool detect_level(Level level) {
#ifdef TW_EMULATE
  (void)level;
  return true;
#else
  __builtin_cpu_init();
  const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  switch (level) {
    case Level::scalar:
      return true;
    case Level::avx2:
      return avx2;
    case Level::avx2vnni:
      return avx2 && __builtin_cpu_supports("avxvnni");
    case Level::avx512:
    case Level::amx:
      return avx2 && __builtin_cpu_supports("x86-64-v4") && __builtin_cpu_supports("avx512vnni") &&
             __builtin_cpu_supports("avx512bf16") && (level == Level::avx512 || tiles_usable());
  }
  return false;
#endif
}

int find_level(const char* name) {
  for (int i = 0; i < kLevelCount; ++i) {
    if (std::strcmp(kNames[i], name) == 0) return i;
  }
  return kUnforced;
}

Detected detect() {
  Detected found;
  size_t used = 0;
  for (int i = 0; i < kLevelCount; ++i) {
    found.usable[i] = detect_level(static_cast<Level>(i));
    if (!found.usable[i]) continue;
    found.best = static_cast<Level>(i);
    used += static_cast<size_t>(
        std::snprintf(found.list + used, sizeof found.list - used, "%s%s", used ? "," : "", kNames[i]));
  }
  const char* wanted = std::getenv("TILEWRIGHT_ISA");
  if (wanted == nullptr || *wanted == '\0') {
    found.chosen = true;
    found.choice = found.best;
    return found;
  }
  const int index = find_level(wanted);
  if (index == kUnforced) {
    std::snprintf(found.error, sizeof found.error,
                  "TILEWRIGHT_ISA is \"%.32s\"; accepted here: %s (unset for the best)", wanted, found.list);
  } else if (!found.usable[index]) {
    std::snprintf(found.error, sizeof found.error,
                  "TILEWRIGHT_ISA is \"%.32s\", which this CPU lacks; accepted here: %s", wanted, found.list);
  } else {
    found.chosen = true;
    found.choice = static_cast<Level>(index);
  }
  return found;
}

const Detected& detected() {
  static const Detected found = detect();
  return found;
}

std::atomic<int> forced{kUnforced};

}  // namespace

const char* level_name(Level level) { return kNames[static_cast<int>(level)]; }

bool level_usable(Level level) { return detected().usable[static_cast<int>(level)]; }

bool current_level(Level* level) {
  const int force = forced.load(std::memory_order_relaxed);
  if (force != kUnforced) {
    *level = static_cast<Level>(force);
    return true;
  }
  const Detected& found = detected();
  *level = found.choice;
  return found.chosen;
}

const char* level_error() {
  Level level;
  return current_level(&level) ? nullptr : detected().error;
}

}  // namespace tw

TW_EXPORT const char* tw_cpu_level(void) {
  tw::Level level;
  return tw::current_level(&level) ? tw::level_name(level) : "none";
}

TW_EXPORT const char* tw_cpu_levels(void) { return tw::detected().list; }

TW_EXPORT const char* tw_cpu_level_error(void) { return tw::level_error(); }

TW_EXPORT int tw_force_level(const char* name) {
  int index = tw::kUnforced;
  if (name != nullptr) {
    index = tw::find_level(name);
    if (index == tw::kUnforced || !tw::level_usable(static_cast<tw::Level>(index))) return 1;
  }
  tw::forced.store(index, std::memory_order_relaxed);
  return 0;
}
