// From scores to weights, and from sums to outputs. Rows are lanes, so nothing crosses them.
#pragma once

#include "attention/host_pack.hpp"

namespace tw::attention::TW_ISA {
namespace {

constexpr float kInf = __builtin_inff();
// Sums are scaled anew only when a score beats the reference by this power of two: fp32 has room for it.
constexpr float kSlack = 8.0f;

// What the lanes of one vector of a panel share over all keys.
struct Lanes {
  VI low, high;
  VF slope, place;
};

TW_INLINE Lanes lanes_of(const Block& b, int64_t lane) {
  Lanes found;
  found.low = load_i(b.low + lane);
  found.high = load_i(b.high + lane);
  found.slope = b.slope != nullptr ? load(b.slope + lane) : zero_f();
  found.place = to_float(load_i(b.place + lane));
  return found;
}

// Keys [first, last) of a block.
struct Keys {
  int64_t first, last;
};

// Scores of keys as powers of two, with cap, slope and mask, in place; the largest of each lane.
template <bool Cap, bool Slope>
TW_INLINE VF adjust_lanes(const Block& b, Keys keys, const Lanes& lanes, float* s) {
  VF most = bcast(-kInf);
  for (int64_t key = b.key0 + keys.first; key < b.key0 + keys.last; ++key, s += kPanelRows) {
    VF x = load(s);
    if constexpr (Cap) {
      x = mul(bcast(b.cap), tanh_of(mul(x, bcast(b.cap_scale))));
    } else {
      x = mul(x, bcast(b.scale));
    }
    if constexpr (Slope) {
      x = sub(x, mul(lanes.slope, absolute(sub(lanes.place, bcast(static_cast<float>(key))))));
    }
    const VM seen = within(bcast_i(static_cast<uint32_t>(key)), lanes.low, lanes.high);
    x = select(seen, x, bcast(-kInf));
    store(s, x);
    most = larger(most, x);
  }
  return most;
}

TW_INLINE VF adjust(const Block& b, Keys keys, const Lanes& lanes, float* s) {
  if (b.cap != 0.0f) {
    return b.slope != nullptr ? adjust_lanes<true, true>(b, keys, lanes, s)
                              : adjust_lanes<true, false>(b, keys, lanes, s);
  }
  return b.slope != nullptr ? adjust_lanes<false, true>(b, keys, lanes, s)
                            : adjust_lanes<false, false>(b, keys, lanes, s);
}

TW_INLINE VF largest(Keys keys, const float* s) {
  VF most[4] = {bcast(-kInf), bcast(-kInf), bcast(-kInf), bcast(-kInf)};
  for (int64_t key = keys.first; key < keys.last; key += 4, s += 4 * kPanelRows) {
    for (int i = 0; i < 4; ++i) most[i] = larger(most[i], load(s + i * kPanelRows));
  }
  return larger(larger(most[0], most[1]), larger(most[2], most[3]));
}

// Whether scores must be changed before they can be weights, but for their scale.
TW_INLINE bool bent(const Block& b) {
  return b.masked || b.cap != 0.0f || b.slope != nullptr || !(b.scale > 0.0f);
}

// The largest score of each lane, as a power of two; bent ones are so afterwards, too.
TW_INLINE VF bend(const Block& b, Keys keys, int64_t panel, int64_t lane, float* s) {
  if (!bent(b)) return mul(largest(keys, s), bcast(b.scale));
  return adjust(b, keys, lanes_of(b, panel * kPanelRows + lane), s);
}

// What is subtracted from every score before 2^x: never infinite where nothing was seen.
TW_INLINE VF shift_of(VF m) { return select(equal(m, bcast(-kInf)), zero_f(), m); }

TW_INLINE VM beats(VF most, VF reference) { return greater(most, add(reference, bcast(kSlack))); }

// Takes a new largest score into account: where it beats the reference, the reference moves and the sums are
// scaled. Returns what to subtract.
TW_INLINE VF move_reference(const Block& b, int64_t panel, int64_t lane, VF most) {
  float* m = b.m + panel * kPanelRows + lane;
  float* l = b.l + panel * kPanelRows + lane;
  const VF before = load(m);
  const VM moved = beats(most, before);
  if (!any(moved)) return shift_of(before);
  const VF now = select(moved, most, before);
  const VF factor = select(moved, exp2_of<5>(sub(before, now)), bcast(1.0f));
  store(m, now);
  store(l, mul(load(l), factor));
  float* o = b.o + panel * b.dv * kPanelRows + lane;
  for (int64_t i = 0; i < b.dv; ++i, o += kPanelRows) store(o, mul(load(o), factor));
  return shift_of(now);
}

// Weights as fp32, [key][16].
TW_INLINE VF weights_f32(Keys keys, const float* s, VF scale, VF shift, float* p) {
  VF sum[2] = {zero_f(), zero_f()};
  const VF minus = sub(zero_f(), shift);
  for (int64_t key = keys.first; key < keys.last; key += 2, s += 2 * kPanelRows, p += 2 * kPanelRows) {
    for (int i = 0; i < 2; ++i) {
      const VF x = exp2_of<5>(fma(load(s + i * kPanelRows), scale, minus));
      store(p + i * kPanelRows, x);
      sum[i] = add(sum[i], x);
    }
  }
  return add(sum[0], sum[1]);
}

// Weights as bf16, [pair of keys][16][2]. Exact: sums are those before rounding.
template <bool Exact>
TW_INLINE VF weights_bf16(Keys keys, const float* s, VF scale, VF shift, char* p) {
  VF sum[2] = {zero_f(), zero_f()};
  const VF minus = sub(zero_f(), shift);
  const VI ones = bcast_i(0x3f803f80u);
  for (int64_t key = keys.first; key < keys.last; key += 4, s += 4 * kPanelRows, p += 2 * kPanelBytes) {
    for (int i = 0; i < 2; ++i) {
      const VF low = exp2_of<Exact ? 5 : 3>(fma(load(s + 2 * i * kPanelRows), scale, minus));
      const VF high = exp2_of<Exact ? 5 : 3>(fma(load(s + (2 * i + 1) * kPanelRows), scale, minus));
      const VI pair = bf16_pairs(low, high);
      store(reinterpret_cast<int32_t*>(p + i * kPanelBytes), pair);
      sum[i] = Exact ? add(sum[i], add(low, high)) : dpbf16(sum[i], pair, ones);
    }
  }
  return add(sum[0], sum[1]);
}

// Weights of keys, whose sums go to `l`; s and p are at the first of them.
template <Kind K>
TW_INLINE void weigh(const Block& b, Keys keys, int64_t row, VF shift, const float* s, char* p) {
  const VF scale = bcast(bent(b) ? 1.0f : b.scale);
  VF sum;
  if constexpr (K == kF32) {
    sum = weights_f32(keys, s, scale, shift, reinterpret_cast<float*>(p));
  } else {
    sum = b.exact ? weights_bf16<true>(keys, s, scale, shift, p)
                  : weights_bf16<false>(keys, s, scale, shift, p);
  }
  store(b.l + row, add(load(b.l + row), sum));
}

// Scores of one panel to weights.
template <Kind K>
TW_INLINE void soften_panel(const Block& b, int64_t panel) {
  const Keys keys{b.first, b.last};
  const int64_t count = b.last - b.first;
  for (int64_t lane = 0; lane < kPanelRows; lane += kLanes) {
    float* s = b.s + panel * count * kPanelRows + lane;
    const VF shift = move_reference(b, panel, lane, bend(b, keys, panel, lane, s));
    char* p = b.p + panel * count / kGroup[K] * kPanelBytes + lane * 4;
    weigh<K>(b, keys, panel * kPanelRows + lane, shift, s, p);
  }
}

// A weight as it was rounded.
template <Kind K>
TW_INLINE float weight_at(const Block& b, int64_t panel, int64_t key, int64_t lane) {
  const int64_t keys = b.last - b.first;
  if constexpr (K == kF32) {
    return reinterpret_cast<const float*>(b.p)[(panel * keys + key) * kPanelRows + lane];
  } else {
    const auto* p = reinterpret_cast<const uint16_t*>(b.p);
    return bf16_to_float(p[((panel * keys + key) / 2 * kPanelRows + lane) * 2 + key % 2]);
  }
}

// inf and NaN of V, which were packed as zeros, reach the rows that see them and no others.
template <class Weight>
void add_special(const Block& b, const Weight& weight) {
  for (int64_t n = 0; n < b.specials; ++n) {
    const int64_t key = b.special[n];
    if (key < b.first || key >= b.last) continue;
    const char* src = b.source.data + key * b.source.row_stride * kElementBytes[b.element];
    for (int64_t row = 0; row < b.panels * kPanelRows; ++row) {
      if (b.key0 + key < b.low[row] || b.key0 + key > b.high[row]) continue;
      const int64_t panel = row / kPanelRows, lane = row % kPanelRows;
      const float w = weight(panel, key - b.first, lane);
      float* o = b.o + panel * b.dv * kPanelRows + lane;
      for (int64_t i = 0; i < b.dv_used; ++i) {
        const float x = element_at(src, b.element, i * b.source.stride);
        if (!finite(x)) o[i * kPanelRows] += w * x;
      }
    }
  }
}

TW_INLINE void store_element(char* to, Element element, int64_t at, float x) {
  if (element == kElementF32) {
    reinterpret_cast<float*>(to)[at] = x;
  } else {
    reinterpret_cast<uint16_t*>(to)[at] = element == kElementBF16 ? float_to_bf16(x) : float_to_fp16(x);
  }
}

TW_INLINE void store_row(char* to, Element element, int64_t stride, const float* row, int64_t n) {
  int64_t i = 0;
  if (stride == 1) {
    for (; i + kLanes <= n; i += kLanes) {
      if (element == kElementF32) {
        store(reinterpret_cast<float*>(to) + i, load(row + i));
      } else if (element == kElementBF16) {
        store_bf16(reinterpret_cast<uint16_t*>(to) + i, load(row + i));
      } else {
        store_fp16(reinterpret_cast<uint16_t*>(to) + i, load(row + i));
      }
    }
  }
  for (; i < n; ++i) store_element(to, element, i * stride, row[i]);
}

// Divides by the sums of weights and writes rows; one that saw nothing is 0 with log-sum-exp -inf.
void finish_rows(const Finish& f) {
  for (int64_t panel = 0; panel * kPanelRows < f.count; ++panel) {
    const float* o = f.o + panel * f.dv * kPanelRows;
    const float *m = f.m + panel * kPanelRows, *l = f.l + panel * kPanelRows;
    alignas(64) float factor[kPanelRows];
    for (int r = 0; r < kPanelRows; ++r) factor[r] = m[r] == -kInf && l[r] == 0.0f ? 0.0f : 1.0f / l[r];
    for (int r = 0; r < kPanelRows && panel * kPanelRows + r < f.count; ++r) {
      const char* row = f.rows[panel * kPanelRows + r];
      for (int64_t i = 0; i < f.dv_used * kElementBytes[f.element]; i += 64)
        __builtin_prefetch(row + i, 1, 3);
    }
    for (int64_t i = 0; i < f.dv; i += 8) {
      for (int half = 0; half < 2; ++half) {
        transpose8x8(reinterpret_cast<const char*>(o + i * kPanelRows + half * 8), kPanelBytes,
                     reinterpret_cast<uint32_t*>(f.room + half * 8 * f.dv + i), f.dv);
      }
    }
    for (int r = 0; r < kPanelRows && panel * kPanelRows + r < f.count; ++r) {
      float* row = f.room + r * f.dv;
      for (int64_t i = 0; i < f.dv; i += kLanes) store(row + i, mul(load(row + i), bcast(factor[r])));
      store_row(f.rows[panel * kPanelRows + r], f.element, f.stride, row, f.dv_used);
      if (f.lse == nullptr) continue;
      const bool nothing = factor[r] == 0.0f && m[r] == -kInf;
      *f.lse[panel * kPanelRows + r] = nothing ? -kInf : (m[r] + __builtin_log2f(l[r])) * 0.69314718056f;
    }
  }
}

}  // namespace
}  // namespace tw::attention::TW_ISA
