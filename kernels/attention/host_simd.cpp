// The computing half of the host attention; compiled once per ISA level with -DTW_ISA=<level>.
#include "_host/simd/simd.hpp"
#include "attention/host_int8.hpp"

namespace tw::attention::TW_ISA {
namespace {

template <void (*Block1)(const Block&)>
void one_by_one(const Block* blocks, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    fetch_part(blocks[i].fetch, 0, 1);
    Block1(blocks[i]);
  }
}

constexpr KernelTable make_table() {
  KernelTable t{};
  t.dots[kF32] = true;
  t.d_unit[kF32] = 1;
  t.key_unit[kF32] = 32;
  t.pack_q[kF32] = pack_q_f32;
  t.pack_k[kF32] = pack_k_f32;
  t.pack_v[kF32] = pack_v_f32;
  t.blocks[kF32] = one_by_one<block_lanes<StepF32, kF32>>;
  t.finish = finish_rows;
  t.key_unit[kBF16] = 32;
  t.dots[kBF16] = kHasDpbf16;
#if TW_LEVEL == TW_LEVEL_amx
  t.d_unit[kBF16] = kChunk<kBF16>;
  t.pack_q[kBF16] = pack_q_tiles;
  t.pack_k[kBF16] = pack_k_tiles;
  t.pack_v[kBF16] = pack_v_tiles;
  t.blocks[kBF16] = one_by_one<block_tiles>;
  t.begin[kBF16] = tiles_begin;
  t.end[kBF16] = tiles_end;
#elif TW_LEVEL >= TW_LEVEL_avx512
  t.d_unit[kBF16] = 2;
  t.pack_q[kBF16] = pack_q_bf16;
  t.pack_k[kBF16] = pack_k_bf16;
  t.pack_v[kBF16] = pack_v_bf16;
  t.blocks[kBF16] = one_by_one<block_lanes<StepBF16, kBF16>>;
#endif
  t.key_unit[kI8] = kI8KeyUnit;
  t.d_unit[kI8] = kI8DUnit;
  t.dots[kI8] = true;
  t.pack_q[kI8] = pack_q_i8;
  t.pack_k[kI8] = pack_k_i8;
  t.pack_v[kI8] = pack_v_i8;
  t.blocks[kI8] = one_by_one<block_i8>;
#if TW_LEVEL == TW_LEVEL_amx
  t.begin[kI8] = tiles_begin;
  t.end[kI8] = tiles_end;
#endif
  return t;
}

constexpr KernelTable kTable = make_table();

}  // namespace

const KernelTable& kernels() { return kTable; }

}  // namespace tw::attention::TW_ISA
