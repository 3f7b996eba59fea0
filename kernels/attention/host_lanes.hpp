// Products on lanes: scores and outputs are sums of a broadcast word times a vector of rows.
#pragma once

#include "attention/host_softmax.hpp"

namespace tw::attention::TW_ISA {
namespace {

struct StepF32 {
  using Acc = VF;
  TW_INLINE VF zero() { return zero_f(); }
  TW_INLINE VF take(const char* p) { return load(reinterpret_cast<const float*>(p)); }
  TW_INLINE VF load_acc(const char* p) { return load(reinterpret_cast<const float*>(p)); }
  TW_INLINE void store_acc(char* p, VF v) { store(reinterpret_cast<float*>(p), v); }
  TW_INLINE VF dot(VF acc, VF rows, const char* word) {
    return fma(rows, bcast(*reinterpret_cast<const float*>(word)), acc);
  }
};

struct StepBF16 {
  using Acc = VF;
  TW_INLINE VF zero() { return zero_f(); }
  TW_INLINE VI take(const char* p) { return load_i(p); }
  TW_INLINE VF load_acc(const char* p) { return load(reinterpret_cast<const float*>(p)); }
  TW_INLINE void store_acc(char* p, VF v) { store(reinterpret_cast<float*>(p), v); }
  TW_INLINE VF dot(VF acc, VI rows, const char* word) {
    uint32_t pair;
    __builtin_memcpy(&pair, word, 4);
    return dpbf16(acc, rows, bcast_i(pair));
  }
};

// Sums of `groups` products for MR x NP panels: result i of panel j at c + i * 64 + j * c_panel. Word (i, g)
// of the left operand is at a + i * a_row + g * a_group, the right one is [panel][g][16] words.
struct Product {
  const char* a;
  int64_t a_row, a_group, groups;
  const char* b;
  int64_t b_panel;
  char* c;
  int64_t c_panel;
};

template <class Step, int MR, int NP, bool Add>
TW_INLINE void product(const Product& p) {
  constexpr int kVecs = NP * kPanelVecs, kVecBytes = 4 * kLanes;
  typename Step::Acc acc[MR][kVecs];
  const auto at = [&](int i, int v) TW_BODY {
    return p.c + i * kPanelBytes + v / kPanelVecs * p.c_panel + v % kPanelVecs * kVecBytes;
  };
  unrolled<MR>([&](int i) TW_BODY {
    unrolled<kVecs>([&](int v) TW_BODY { acc[i][v] = Add ? Step::load_acc(at(i, v)) : Step::zero(); });
  });
  const char *a = p.a, *b = p.b;
  for (int64_t g = 0; g < p.groups; ++g, a += p.a_group, b += kPanelBytes) {
    decltype(Step::take(b)) rows[kVecs];
    unrolled<kVecs>([&](int v) TW_BODY {
      rows[v] = Step::take(b + v / kPanelVecs * p.b_panel + v % kPanelVecs * kVecBytes);
    });
    unrolled<MR>([&](int i) TW_BODY {
      unrolled<kVecs>([&](int v) TW_BODY { acc[i][v] = Step::dot(acc[i][v], rows[v], a + i * p.a_row); });
    });
  }
  unrolled<MR>(
      [&](int i) TW_BODY { unrolled<kVecs>([&](int v) TW_BODY { Step::store_acc(at(i, v), acc[i][v]); }); });
}

constexpr int kMr = kLanes >= 16 ? 8 : kLanes >= 8 ? 4 : 2;
constexpr int kNp = kLanes >= 16 ? 2 : 1;

// All of `count` results, a multiple of kMr, for every panel.
template <class Step, bool Add>
TW_INLINE void products(Product p, int64_t count, int64_t panels) {
  const Product start = p;
  for (int64_t j = 0; j < panels; j += kNp) {
    p.b = start.b + j * p.b_panel;
    for (int64_t i = 0; i < count; i += kMr) {
      p.a = start.a + i * p.a_row;
      p.c = start.c + j * p.c_panel + i * kPanelBytes;
      if (j + kNp <= panels) {
        product<Step, kMr, kNp, Add>(p);
      } else {
        product<Step, kMr, 1, Add>(p);
      }
    }
  }
}

// Scores of [first, last), as Step's sums.
template <class Step>
TW_INLINE void score_lanes(const Block& b) {
  const int64_t keys = b.last - b.first, key_bytes = b.groups * 4;
  Product p;
  p.a = b.k + b.first * key_bytes;
  p.a_row = key_bytes;
  p.a_group = 4;
  p.groups = b.groups;
  p.b = b.q;
  p.b_panel = b.groups * kPanelBytes;
  p.c = reinterpret_cast<char*>(b.s);
  p.c_panel = keys * kPanelBytes;
  products<Step, false>(p, keys, b.panels);
}

// Weights times values, added to `sums` or stored there.
template <class Step, Kind K, bool Add>
TW_INLINE void value_lanes(const Block& b, char* sums) {
  constexpr int64_t kPer = kGroup[K];
  const int64_t groups = (b.last - b.first) / kPer;
  Product p;
  p.a = b.v + b.first / kPer * b.dv * 4;
  p.a_row = 4;
  p.a_group = b.dv * 4;
  p.groups = groups;
  p.b = b.p;
  p.b_panel = groups * kPanelBytes;
  p.c = sums;
  p.c_panel = b.dv * kPanelBytes;
  products<Step, Add>(p, b.dv, b.panels);
}

template <class Step, Kind K>
void block_lanes(const Block& b) {
  score_lanes<Step>(b);
  for (int64_t panel = 0; panel < b.panels; ++panel) soften_panel<K>(b, panel);
  value_lanes<Step, K, true>(b, reinterpret_cast<char*>(b.o));
  if (b.specials != 0) {
    add_special(b,
                [&](int64_t panel, int64_t key, int64_t lane) { return weight_at<K>(b, panel, key, lane); });
  }
}

}  // namespace
}  // namespace tw::attention::TW_ISA
