// Which stages compute logits and outputs: those with dot-product instructions where the level, the format
// and the number of channels allow it, else the ones that take everything.
#pragma once

#include "paged_attention/host_tile.hpp"

#if TW_LEVEL >= TW_LEVEL_avx512 && !defined(TW_EMULATE)
#include "paged_attention/host_bf16.hpp"
#include "paged_attention/host_int8.hpp"
#if TW_LEVEL == TW_LEVEL_amx
#include "paged_attention/host_amx.hpp"
#endif
#endif

namespace tw::paged::TW_ISA {

// Works on one head's page, and asks for what is ahead.
using PageStage = void (*)(const Work&, const Block&, int page, int64_t local, Ahead*);
// Works on one head's block.
using BlockStage = void (*)(const Work&, const Block&, int64_t local);

// How a task computes. Steps are those a stage makes in one page of one row at least, in which it asks for
// lines.
struct Path {
  PageStage scores, values;
  void (*finish)(const Work&, const Block&, int page,
                 int64_t local);  // after `scores` of all heads; null for none
  int64_t score_steps, value_steps;
  BlockStage weights;            // what the weights become for `values`; null for nothing
  void (*queries)(const Work&);  // what queries become for `scores`; null for nothing
  void (*begin)();               // before the first and after the last stage; null for nothing
  void (*end)();
};

#if TW_LEVEL >= TW_LEVEL_avx512 && !defined(TW_EMULATE)

// Codes have 8 bits, weights and queries 16 there: too few for fp32 outputs.
TW_INLINE bool takes_int8(const Problem& p, const Side& side) {
  return (p.kv == kC8s || p.kv == kC8d) && p.o.dtype != TW_FP32 && side.channels % 64 == 0;
}
TW_INLINE bool takes_bf16(const Side& side, int64_t channels) {
  return side.pages.dtype == TW_BF16 && channels % 32 == 0;
}

TW_INLINE void choose_dots(const Problem& p, int64_t rows, Path* path) {
  const Side& v = p.latent ? p.k : p.v;
  const bool nz = p.k.chunk_step != 32;
  if (takes_int8(p, p.k)) {
    path->scores = nz ? int8_scores<true> : int8_scores<false>;
    path->score_steps = rows * 2 * p.dk / 64;
    path->queries = pack_int8;
#if TW_LEVEL == TW_LEVEL_amx
    path->scores = nz ? amx_products<true, true> : amx_products<false, true>;
    path->finish = amx_int8_finish;
    path->score_steps = (rows + 7) / 8 * (p.k.row_bytes / (nz ? 32 : 64));
    path->queries = nz ? amx_pack_int8<true> : amx_pack_int8<false>;
#endif
  } else if (takes_bf16(p.k, p.dk)) {
    path->scores = nz ? bf16_scores<true> : bf16_scores<false>;
    path->score_steps = rows * p.dk / 32;
    path->queries = pack_bf16;
#if TW_LEVEL == TW_LEVEL_amx
    path->scores = nz ? amx_products<true, false> : amx_products<false, false>;
    path->finish = amx_bf16_finish;
    path->score_steps = (rows + 15) / 16 * (p.k.row_bytes / (nz ? 32 : 64));
    path->queries = nz ? amx_pack_bf16<true> : amx_pack_bf16<false>;
#endif
  }
#if TW_LEVEL == TW_LEVEL_amx
  if (path->queries != nullptr) {
    path->begin = nz ? amx_begin<true> : amx_begin<false>;
    path->end = tiles_end;
  }
#endif
  if (takes_int8(p, v)) {
    path->values = nz ? int8_values<true> : int8_values<false>;
    path->value_steps = (rows + 1) / 2 * 4 * p.dv / 64;
    path->weights = int8_weights;
  } else if (takes_bf16(v, p.dv)) {
    path->values = nz ? bf16_values<true> : bf16_values<false>;
    path->value_steps =
        (rows + 3) / 4 * 8 * (rows == 1 || rows == 2 ? (p.dv / 32 + 3) / 4 : (p.dv / 32 + 1) / 2);
    path->weights = bf16_weights;
#if TW_LEVEL == TW_LEVEL_amx
    path->values = nz ? bf16_single_values<true> : bf16_single_values<false>;
    path->value_steps *= 2;
    path->weights = nullptr;
#endif
  }
}

#else

TW_INLINE void choose_dots(const Problem&, int64_t, Path*) {}

#endif

TW_INLINE Path choose_path(const Problem& p, int64_t rows) {
  Path path{tile_scores, tile_values, nullptr, kPage, kPage, nullptr, nullptr, nullptr, nullptr};
  choose_dots(p, rows, &path);
  return path;
}

}  // namespace tw::paged::TW_ISA
