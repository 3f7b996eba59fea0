// int8 products: rows, keys less their mean, weights and values rounded to codes of 8 bits.
//
// A row of Q has its own scale, a packed block of keys one (after its mean, which is the same for all keys of
// a block and comes back as one number per row, is subtracted: SageAttention), a dv of packed V one. Weights
// are codes of the largest in the block, row by row, so that a block of small ones loses nothing.
#pragma once

#include "attention/host_lanes.hpp"
#if TW_LEVEL == TW_LEVEL_amx
#include "attention/host_tiles.hpp"
#endif

namespace tw::attention::TW_ISA {
namespace {

// dpbusd takes unsigned codes of keys: 128 more, which sums of rows take back.
constexpr bool kFlipped = kHasDpbusd && !kHasTiles;
// Codes of weights are unsigned where the products take that.
constexpr float kMostWeight = kHasDpbusd ? 255.0f : 127.0f;
constexpr int64_t kI8KeyUnit = kHasTiles ? 64 : 32;
constexpr int64_t kI8DUnit = kHasTiles ? 64 : 4;

TW_INLINE int64_t i8_groups(int64_t dk) { return (dk + kI8DUnit - 1) / kI8DUnit * kI8DUnit / 4; }

TW_INLINE float largest_size(const float* x, int64_t n, float most) {
  for (int64_t i = 0; i < n; ++i) {
    const float size = x[i] < 0.0f ? -x[i] : x[i];
    most = size > most ? size : most;
  }
  return most;
}

TW_INLINE int8_t code_of(float x) {
  const float y = __builtin_rintf(x);
  return static_cast<int8_t>(y > 127.0f ? 127.0f : y < -127.0f ? -127.0f : y);
}

// What a code is worth, and its inverse; both 0 where all values are 0.
struct Scale {
  float worth, inverse;
};
TW_INLINE Scale scale_of(float most) {
  if (!(most > 1e-30f)) return {0.0f, 0.0f};
  return {most / 127.0f, 127.0f / most};
}

void pack_q_i8(const PackQ& p) {
  const int64_t groups = i8_groups(p.dk);
  alignas(64) float wide[kMostD];
  for (int64_t row = 0; row < p.panels * kPanelRows; ++row) {
    const int64_t panel = row / kPanelRows, lane = row % kPanelRows;
    char* dst = p.dst + panel * groups * kPanelBytes + lane * 4;
    float* keep = p.wide + panel * p.dk * kPanelRows + lane;
    Scale scale{0.0f, 0.0f};
    int32_t sum = 0;
    if (row < p.count) {
      widen_row(p.rows[row], p.element, p.stride, p.dk, wide);
      scale = scale_of(largest_size(wide, p.dk, 0.0f));
      // inf and NaN have no code: every score of the row is NaN.
      if (row_special(p.rows[row], p.element, p.stride, p.dk)) scale = {__builtin_nanf(""), 0.0f};
    } else {
      __builtin_memset(wide, 0, static_cast<size_t>(p.dk * 4));
    }
    for (int64_t g = 0; g < groups; ++g) {
      for (int i = 0; i < 4; ++i) {
        const int64_t d = 4 * g + i;
        const int8_t code = d < p.dk && scale.inverse != 0.0f ? code_of(wide[d] * scale.inverse) : int8_t{0};
        dst[g * kPanelBytes + i] = static_cast<char>(code);
        sum += code;
      }
    }
    for (int64_t d = 0; d < p.dk; ++d) keep[d * kPanelRows] = wide[d];
    p.row_scale[row] = scale.worth;
    p.row_start[row] = kFlipped ? -128 * sum : 0;
  }
}

// Keys as fp32, those with inf or NaN as zeros; the mean of the others.
TW_INLINE void widen_keys(const PackK& p) {
  for (int64_t d = 0; d < p.dk; ++d) p.mean[d] = 0.0f;
  int64_t count = 0;
  for (int64_t key = 0; key < p.keys; ++key) {
    const char* src = p.k.data + key * p.k.row_stride * kElementBytes[p.element];
    prefetch_row(p.k, key + kRowsAhead, p.keys, p.dk, p.element);
    float* row = p.room + key * p.dk;
    if (row_special(src, p.element, p.k.stride, p.dk)) {
      p.special[(*p.specials)++] = static_cast<int32_t>(key);
      continue;
    }
    widen_row(src, p.element, p.k.stride, p.dk, row);
    for (int64_t d = 0; d < p.dk; ++d) p.mean[d] += row[d];
    ++count;
  }
  for (int64_t d = 0; d < p.dk; ++d) p.mean[d] = count == 0 ? 0.0f : p.mean[d] / static_cast<float>(count);
  // What has no code becomes the mean, and so a row of zeros.
  for (int64_t i = 0; i < *p.specials; ++i) {
    __builtin_memcpy(p.room + p.special[i] * p.dk, p.mean, static_cast<size_t>(p.dk * 4));
  }
}

void pack_k_i8(const PackK& p) {
  const int64_t groups = i8_groups(p.dk), bytes = groups * 4;
  widen_keys(p);
  float most = 0.0f;
  for (int64_t key = 0; key < p.keys; ++key) {
    float* row = p.room + key * p.dk;
    for (int64_t d = 0; d < p.dk; ++d) row[d] -= p.mean[d];
    most = largest_size(row, p.dk, most);
  }
  const Scale scale = scale_of(most);
  *p.key_scale = scale.worth;
  alignas(64) int8_t codes[kMostD + 64];
  for (int64_t key = 0; key < p.padded; ++key) {
    __builtin_memset(codes, 0, static_cast<size_t>(bytes));
    const float* row = p.room + key * p.dk;
    for (int64_t d = 0; key < p.keys && d < p.dk; ++d) codes[d] = code_of(row[d] * scale.inverse);
    if (kFlipped) {
      for (int64_t d = 0; d < bytes; ++d) codes[d] = static_cast<int8_t>(codes[d] ^ 0x80);
    }
#if TW_LEVEL == TW_LEVEL_amx
    store_chunks(key_tile(p.dst, key, bytes / kTileBytes), reinterpret_cast<char*>(codes),
                 bytes / kTileBytes);
#else
    __builtin_memcpy(p.dst + key * bytes, codes, static_cast<size_t>(bytes));
#endif
  }
}

void pack_v_i8(const PackV& p) {
  CleanRow copy;
  const int64_t dv = padded_dv(p.dv);
  float* wide = reinterpret_cast<float*>(p.room);
  alignas(64) float inverse[kMostD];
  for (int64_t i = 0; i < dv; ++i) p.dv_scale[i] = inverse[i] = 0.0f;
  for (int64_t key = 0; key < p.keys; ++key) {
    const Row row = clean_row(p, key, copy);
    widen_row(row.data, p.element, row.stride, p.dv, wide + key * p.dv);
    for (int64_t i = 0; i < p.dv; ++i) p.dv_scale[i] = largest_size(wide + key * p.dv + i, 1, p.dv_scale[i]);
  }
  for (int64_t i = 0; i < p.dv; ++i) {
    const Scale scale = scale_of(p.dv_scale[i]);
    p.dv_scale[i] = scale.worth;
    inverse[i] = scale.inverse;
  }
#if TW_LEVEL == TW_LEVEL_amx
  // Quads of keys first, behind the wide values, then words transposed.
  char* quads = p.room + (p.padded * p.dv * 4 + 63) / 64 * 64;
#else
  char* quads = p.dst;
#endif
  for (int64_t key = 0; key < p.padded; ++key) {
    char* dst = quads + key / 4 * dv * 4 + key % 4;
    const float* row = wide + key * p.dv;
    for (int64_t i = 0; i < dv; ++i) {
      const bool there = key < p.keys && i < p.dv;
      dst[4 * i] = there ? static_cast<char>(code_of(row[i] * inverse[i])) : char{0};
    }
  }
#if TW_LEVEL == TW_LEVEL_amx
  transpose_values(reinterpret_cast<const uint32_t*>(quads), p.padded / 4, dv, p.dst);
#endif
}

template <bool Scores>
struct StepI8 {
  using Acc = VI;
  TW_INLINE VI zero() { return zero_i(); }
  TW_INLINE VI take(const char* p) { return load_i(p); }
  TW_INLINE VI load_acc(const char* p) { return load_i(p); }
  TW_INLINE void store_acc(char* p, VI v) { store(reinterpret_cast<int32_t*>(p), v); }
  TW_INLINE VI dot(VI acc, VI rows, const char* word) {
    uint32_t quad;
    __builtin_memcpy(&quad, word, 4);
    if constexpr (kHasDpbusd) {
      return Scores ? dpbusd(acc, bcast_i(quad), rows) : dpbusd(acc, rows, bcast_i(quad));
    } else {
      acc = madd16_add(acc, bytes_even(rows), bytes_even(bcast_i(quad)));
      return madd16_add(acc, bytes_odd(rows), bytes_odd(bcast_i(quad)));
    }
  }
};

// Sums of codes to scores, in place; keys without codes get theirs from what they were.
TW_INLINE void scores_of_sums(const Block& b, int64_t panel, int64_t lane, float* s) {
  const Whole& w = b.whole;
  const int64_t row = panel * kPanelRows + lane;
  const float* q = w.q + panel * w.dk * kPanelRows + lane;
  VF mean = zero_f();
  for (int64_t d = 0; d < w.dk; ++d) mean = fma(load(q + d * kPanelRows), bcast(w.mean[d]), mean);
  const VF scale = mul(load(w.row_scale + row), bcast(w.key_scale));
  const VI start = load_i(w.row_start + row);
  for (int64_t i = 0; i < b.last - b.first; ++i) {
    float* at = s + i * kPanelRows;
    store(at, fma(to_float(add(load_i(at), start)), scale, mean));
  }
  for (int64_t n = 0; n < w.specials; ++n) {
    const int64_t key = w.special[n];
    if (key < b.first || key >= b.last) continue;
    const char* src = w.keys.data + key * w.keys.row_stride * kElementBytes[b.element];
    VF sum = zero_f();
    for (int64_t d = 0; d < w.dk; ++d) {
      sum = fma(load(q + d * kPanelRows), bcast(element_at(src, b.element, d * w.keys.stride)), sum);
    }
    store(s + (key - b.first) * kPanelRows, sum);
  }
}

TW_INLINE VM unordered(VF v) { return greater(select(equal(v, v), zero_f(), bcast(1.0f)), zero_f()); }

// NaN where a weight is, which codes cannot say, else 0.
VF nan_of(const Block& b, const float* s, VF scale, VF shift) {
  VF found = zero_f();
  for (int64_t key = b.first; key < b.last; ++key, s += kPanelRows) {
    found = fma(exp2_of<4>(fma(load(s), scale, sub(zero_f(), shift))), zero_f(), found);
  }
  return found;
}

// Codes of weights, [group of keys][16][4], relative to `most`; their sum.
TW_INLINE VF weights_i8(const Block& b, const float* s, VF scale, VF shift, char* p) {
  const VF minus = sub(zero_f(), shift), high = bcast(kMostWeight);
  VI sum = zero_i();
  for (int64_t key = b.first; key < b.last; key += 4, s += 4 * kPanelRows, p += kPanelBytes) {
    VI code[4];
    for (int i = 0; i < 4; ++i) {
      const VF x = exp2_of<4>(fma(load(s + i * kPanelRows), scale, minus));
      // The largest score has code `high`, but for rounding. NaN is told apart.
      code[i] = rounded(larger(zero_f(), mul(select(greater(x, bcast(1.0f)), bcast(1.0f), x), high)));
      sum = add(sum, code[i]);
    }
    store(reinterpret_cast<int32_t*>(p), bytes_of(code[0], code[1], code[2], code[3]));
  }
  return to_float(sum);
}

TW_INLINE void soften_panel_i8(const Block& b, int64_t panel) {
  const int64_t keys = b.last - b.first;
  const VF scale = bcast(bent(b) ? 1.0f : b.scale);
  for (int64_t lane = 0; lane < kPanelRows; lane += kLanes) {
    float* s = b.s + panel * keys * kPanelRows + lane;
    scores_of_sums(b, panel, lane, s);
    const VF most = bend(b, {b.first, b.last}, panel, lane, s);
    const VF shift = move_reference(b, panel, lane, most);
    const VF own = shift_of(most);
    // 0 where nothing was seen, NaN where a score is.
    VF portion = exp2_of<5>(sub(select(equal(most, bcast(-kInf)), bcast(-kInf), own), shift));
    if (b.whole.specials != 0 || any(unordered(load(b.whole.row_scale + panel * kPanelRows + lane)))) {
      portion = add(portion, nan_of(b, s, scale, own));
    }
    float* l = b.l + panel * kPanelRows + lane;
    const VF sum = weights_i8(b, s, scale, own, b.p + panel * keys / 4 * kPanelBytes + lane * 4);
    portion = mul(portion, bcast(1.0f / kMostWeight));
    store(l, fma(sum, portion, load(l)));
    store(b.whole.portions + panel * kPanelRows + lane, portion);
  }
}

// Sums of codes of weights times codes of values, to outputs.
TW_INLINE void add_values(const Block& b) {
  for (int64_t panel = 0; panel < b.panels; ++panel) {
    for (int64_t lane = 0; lane < kPanelRows; lane += kLanes) {
      const VF portion = load(b.whole.portions + panel * kPanelRows + lane);
      const int64_t at = panel * b.dv * kPanelRows + lane;
      for (int64_t i = 0; i < b.dv; ++i) {
        float* o = b.o + at + i * kPanelRows;
        const VF sum = to_float(load_i(b.whole.sums + at + i * kPanelRows));
        store(o, fma(mul(sum, bcast(b.whole.dv_scale[i])), portion, load(o)));
      }
    }
  }
}

TW_INLINE float code_weight_at(const Block& b, int64_t panel, int64_t key, int64_t lane) {
  const int64_t keys = b.last - b.first;
  const auto* p = reinterpret_cast<const uint8_t*>(b.p);
  const uint8_t code = p[((panel * keys + key) / 4 * kPanelRows + lane) * 4 + key % 4];
  return static_cast<float>(code) * b.whole.portions[panel * kPanelRows + lane];
}

void block_i8(const Block& b) {
  char* sums = reinterpret_cast<char*>(b.whole.sums);
#if TW_LEVEL == TW_LEVEL_amx
  score_tiles<DotScores>(b);
#else
  score_lanes<StepI8<true>>(b);
#endif
  for (int64_t panel = 0; panel < b.panels; ++panel) soften_panel_i8(b, panel);
#if TW_LEVEL == TW_LEVEL_amx
  value_tiles<DotValues, kI8, false>(b, sums);
#else
  value_lanes<StepI8<false>, kI8, false>(b, sums);
#endif
  add_values(b);
  if (b.specials != 0) {
    add_special(
        b, [&](int64_t panel, int64_t key, int64_t lane) { return code_weight_at(b, panel, key, lane); });
  }
}

}  // namespace
}  // namespace tw::attention::TW_ISA
