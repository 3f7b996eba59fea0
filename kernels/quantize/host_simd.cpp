// Scales and codes of rows, with the encoder of KV caches; compiled once per ISA level with -DTW_ISA=<level>.
#include "_kv/host_encode.hpp"
#include "quantize/host_kernels.hpp"

namespace tw::quantize::TW_ISA {
namespace {

using namespace tw::TW_ISA;

// Whole vectors of elements side by side are read where they lie, other rows widened first.
bool as_they_lie(const Block& b) { return b.x.dense() && b.x.cols % kLanes == 0; }

template <class Body>
TW_INLINE void with_row(const Block& b, int64_t t, const Body& body) {
  const char* at = b.x.at(t);
  if (as_they_lie(b)) {
    if (b.dtype == kRowF32) return body(Raw<kRowF32>{at});
    if (b.dtype == kRowBF16) return body(Raw<kRowBF16>{at});
    return body(Raw<kRowF16>{at});
  }
  auto* wide = reinterpret_cast<float*>(b.room);
  widen_row(at, b.x.lane, b.dtype, b.x.cols, wide);
  body(Widened{wide});
}

template <class Row, class Scaling>
TW_INLINE void put_codes(const Block& b, int64_t t, const Row& row, const Scaling& scaling) {
  if (b.q.dense() && b.q.cols % kLanes == 0) {
    codes8(row, b.q.cols, scaling, reinterpret_cast<int8_t*>(b.q.at(t)));
    return;
  }
  char* codes = b.room + 4 * (b.x.cols + kRoom);
  codes8(row, b.q.cols, scaling, reinterpret_cast<int8_t*>(codes));
  rows::copy_lanes(codes, 1, b.q.at(t), b.q.lane, 1, b.q.cols);
}

void by_token(const Block& b, const Scales& scales, bool found) {
  for (int64_t t = 0; t < b.x.rows; ++t) {
    with_row(b, t, [&](const auto& row) TW_BODY {
      if (!found) return put_codes(b, t, row, PerRow(1.0f / scales.get(t)));
      const float scale = token_scale8(row, b.x.cols);
      scales.put(t, scale);
      put_codes(b, t, row, PerOwnRow(1.0f / scale));
    });
  }
}

void find_scales(const Block& b, const Scales& scales) {
  float most[kChannels + kRoom] = {};
  for (int64_t t = 0; t < b.x.rows; ++t) {
    with_row(b, t, [&](const auto& row) TW_BODY {
      for (int64_t i = 0; i < b.x.cols; i += kLanes) {
        store(most + i, larger_magnitude(load(most + i), row.at(i)));
      }
    });
  }
  for (int64_t i = 0; i < b.x.cols; ++i) {
    const float scale = most[i] * (1.0f / 127.0f);
    scales.put(i, scale < kTiny ? 1.0f : scale);
  }
}

void by_channel(const Block& b, const Scales& scales, bool found) {
  if (found) find_scales(b, scales);
  float r[kChannels + kRoom] = {};
  for (int64_t i = 0; i < b.x.cols; ++i) r[i] = 1.0f / scales.get(i);
  for (int64_t t = 0; t < b.x.rows; ++t) {
    with_row(b, t, [&](const auto& row) TW_BODY { put_codes(b, t, row, PerChannel{r}); });
  }
}

constexpr KernelTable kTable = {.by_token = by_token, .by_channel = by_channel};

}  // namespace

const KernelTable& kernels() { return kTable; }

}  // namespace tw::quantize::TW_ISA
