// Peak loops of one ISA level; compiled once per level with -DTW_ISA=<level>.
#include "_host/ceilings.hpp"
#include "_host/simd/simd.hpp"

namespace tw::ceilings::TW_ISA {
namespace {

using namespace tw::TW_ISA;

constexpr int kChains = 12;

// The value counts as used.
template <class V>
TW_INLINE void use(V value) {
  pin(value);
}

template <class V, class Step>
TW_INLINE void chains(int64_t steps, V start, const Step& one) {
  V c[kChains];
  unrolled<kChains>([&](int i) TW_BODY {
    V own = start;
    pin(own);  // equal chains would be merged into one
    c[i] = own;
  });
  for (int64_t s = 0; s < steps; ++s) {
    unrolled<kChains>([&](int i) TW_BODY { c[i] = one(c[i]); });
  }
  unrolled<kChains>([&](int i) TW_BODY { use(c[i]); });
}

void compute_fp32(int64_t steps) {
  VF a = bcast(0.5f), b = bcast(0.25f);
  pin(a);
  pin(b);
  chains(steps, zero_f(), [&](VF c) { return fma(a, b, c); });
}

#if TW_LEVEL == TW_LEVEL_amx
// One step: four tile products that share no sums.
constexpr int64_t kTileOps = 4 * 2 * kTileRows * 16;

void compute_tiles_bf16(int64_t steps) {
  tiles_begin();
  for (int64_t s = 0; s < steps; ++s) {
    tile_dot_bf16<0, 4, 6>();
    tile_dot_bf16<1, 4, 7>();
    tile_dot_bf16<2, 5, 6>();
    tile_dot_bf16<3, 5, 7>();
  }
  tiles_end();
}

void compute_tiles_int8(int64_t steps) {
  tiles_begin();
  for (int64_t s = 0; s < steps; ++s) {
    tile_dot_int8<0, 4, 6>();
    tile_dot_int8<1, 4, 7>();
    tile_dot_int8<2, 5, 6>();
    tile_dot_int8<3, 5, 7>();
  }
  tiles_end();
}
#else
void compute_bf16(int64_t steps) {
  if constexpr (!kHasDpbf16) return compute_fp32(steps);
  VI a = bcast_i(0x3f003f00u), b = bcast_i(0x3e803e80u);
  pin(a);
  pin(b);
  chains(steps, zero_f(), [&](VF c) { return dpbf16(c, a, b); });
}

// Without dpbusd: products of sign-extended bytes, two 16-bit multiply-adds for what dpbusd does in one.
void compute_int8(int64_t steps) {
  if constexpr (kHasDpbusd) {
    VI a = bcast_i(0x01020304u), b = bcast_i(0x05060708u);
    pin(a);
    pin(b);
    chains(steps, zero_i(), [&](VI c) { return dpbusd(c, a, b); });
  } else {
    alignas(64) uint32_t operands[kChains * kLanes];
    for (uint32_t& word : operands) word = 0x00010002u;
    VI b = bcast_i(0x00030004u), c[kChains];
    pin(b);
    unrolled<kChains>([&](int i) TW_BODY { c[i] = zero_i(); });
    for (int64_t s = 0; s < steps; ++s) {
      // Operands may have changed: the products stay in the loop.
      __asm__ volatile("" : : "r"(operands) : "memory");
      unrolled<kChains>([&](int i) TW_BODY { c[i] = madd16_add(c[i], b, load_i(operands + i * kLanes)); });
    }
    unrolled<kChains>([&](int i) TW_BODY { use(c[i]); });
  }
}

#endif

void read_all(const char* data, int64_t bytes) {
  VI c[8];
  unrolled<8>([&](int i) TW_BODY { c[i] = zero_i(); });
  for (const char* end = data + bytes; data != end; data += 8 * sizeof(VI)) {
    unrolled<8>([&](int i) TW_BODY { c[i] = add(c[i], load_i(data + i * static_cast<int>(sizeof(VI)))); });
  }
  unrolled<8>([&](int i) TW_BODY { use(c[i]); });
}

void write_all(char* data, int64_t bytes) {
  VI value = bcast_i(0x01010101u);
  pin(value);
  for (char* end = data + bytes; data != end; data += 8 * sizeof(VI)) {
    unrolled<8>([&](int i) TW_BODY { store(reinterpret_cast<int32_t*>(data) + i * kLanes, value); });
  }
}

constexpr int64_t kFloatOps = 2 * kLanes * kChains;

constexpr Loops kLoops = {
#if TW_LEVEL == TW_LEVEL_amx
    .ops_per_step = {kFloatOps, 32 * kTileOps, kFloatOps, 64 * kTileOps},
    .compute = {compute_fp32, compute_tiles_bf16, compute_fp32, compute_tiles_int8},
#else
    .ops_per_step = {kFloatOps, kHasDpbf16 ? 2 * kFloatOps : kFloatOps, kFloatOps,
                     kHasDpbusd ? 4 * kFloatOps : 2 * kFloatOps},
    .compute = {compute_fp32, compute_bf16, compute_fp32, compute_int8},
#endif
    .bytes_per_step = 8 * sizeof(VI),
    .read = read_all,
    .write = write_all,
};

}  // namespace

const Loops& loops() { return kLoops; }

}  // namespace tw::ceilings::TW_ISA
