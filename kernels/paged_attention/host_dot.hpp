// Which stages compute logits and outputs: those with dot-product instructions where the level, the format and
// the number of channels allow it, else the ones that take everything.
#pragma once

#include "paged_attention/host_tile.hpp"

#if TW_LEVEL >= TW_LEVEL_avx512 && !defined(TW_EMULATE)
#include "paged_attention/host_bf16.hpp"
#include "paged_attention/host_int8.hpp"
#endif

namespace tw::paged::TW_ISA {

using Stage = void (*)(const Work&, const Block&, int64_t local);

#if TW_LEVEL >= TW_LEVEL_avx512 && !defined(TW_EMULATE)

// Codes have 8 bits, weights and queries 16 there: too few for fp32 outputs.
TW_INLINE bool takes_int8(const Problem& p, const Side& side) {
  return (p.kv == kC8s || p.kv == kC8d) && p.o.dtype != TW_FP32 && side.channels % 64 == 0;
}
TW_INLINE bool takes_bf16(const Side& side, int64_t channels) {
  return side.pages.dtype == TW_BF16 && channels % 32 == 0;
}

TW_INLINE Stage choose_scores(const Problem& p) {
  const bool nz = p.k.chunk_step != 32;
  if (takes_int8(p, p.k)) return nz ? int8_scores<true> : int8_scores<false>;
  if (takes_bf16(p.k, p.dk)) return nz ? bf16_scores<true> : bf16_scores<false>;
  return tile_scores;
}

TW_INLINE Stage choose_values(const Problem& p) {
  const Side& side = p.latent ? p.k : p.v;
  const bool nz = side.chunk_step != 32;
  if (takes_int8(p, side)) return nz ? int8_values<true> : int8_values<false>;
  if (takes_bf16(side, p.dv)) return nz ? bf16_values<true> : bf16_values<false>;
  return tile_values;
}

TW_INLINE void pack_queries(const Work& w) {
  if (takes_int8(w.p, w.p.k)) {
    pack_int8(w);
  } else if (takes_bf16(w.p.k, w.p.dk)) {
    pack_bf16(w);
  }
}

#else

TW_INLINE Stage choose_scores(const Problem&) { return tile_scores; }
TW_INLINE Stage choose_values(const Problem&) { return tile_values; }
TW_INLINE void pack_queries(const Work&) {}

#endif

}  // namespace tw::paged::TW_ISA
