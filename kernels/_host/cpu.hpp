// Which instruction set the kernels of this process use.
#pragma once

namespace tw {

enum class Level : int { scalar = 0, avx2 = 1, avx2vnni = 2, avx512 = 3, amx = 4 };
inline constexpr int kLevelCount = 5;

const char* level_name(Level level);

// True when this CPU and its operating system can run `level`.
bool level_usable(Level level);

// The level in use: the one forced, else TILEWRIGHT_ISA, else the best usable one. The environment is read
// once. Returns false when TILEWRIGHT_ISA asks for what cannot be had; level_error() then says why.
bool current_level(Level* level);

// One sentence, or null when there is a level.
const char* level_error();

}  // namespace tw

extern "C" {
// Name of the level in use, "none" when TILEWRIGHT_ISA was refused.
const char* tw_cpu_level(void);
// Usable levels, worst first, comma separated.
const char* tw_cpu_levels(void);
// Why there is no level, or null.
const char* tw_cpu_level_error(void);
// Forces a level by name for the whole process (null: back to the automatic choice). 0 when done, 1 when
// refused.
int tw_force_level(const char* name);
}
