// int8 codes and scales of x[T, D], on the CPU: checks and threads.
#include <algorithm>
#include <vector>

#include "_host/cpu.hpp"
#include "_host/export.hpp"
#include "_host/levels.hpp"
#include "quantize/host_kernels.hpp"

TW_LEVELS(quantize, KernelTable)

namespace tw::quantize {

namespace {

using rows::Matrix;

enum Mode : int64_t { kToken = 0, kChannel = 1, kGivenToken = 2, kGivenChannel = 3 };

struct Problem {
  Matrix x, q;
  Scales scales;
  int32_t dtype;
  bool token, found;
};

// Given scales are numbers whose reciprocals are numbers.
bool check_scales(const Call& call, const Scales& scales, const char* name, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const float scale = scales.get(i);
    if (scale >= 0x1p-126f && scale <= 0x1p126f) continue;
    call.refuse("%s[%lld] is %g; accepted: 2^-126 to 2^126", name, static_cast<long long>(i),
                static_cast<double>(scale));
    return false;
  }
  return true;
}

bool read(const Call& call, Problem* p) {
  const tw_tensor* x = rows::require_floats(call, "x");
  if (x == nullptr) return false;
  const int64_t t = x->shape[0], d = x->shape[1], mode = call.attr("scales", kToken);
  if (mode < kToken || mode > kGivenChannel) {
    call.refuse("scales is %lld; accepted: 0 (token), 1 (channel), 2 (static_token), 3 (static_channel)",
                static_cast<long long>(mode));
    return false;
  }
  if (mode == kChannel && call.attr("batch_invariant", 0) != 0) {
    call.refuse(
        "a channel's scale is found over all tokens, so no row is independent of its batch; accepted with "
        "batch_invariant: token, static_token, static_channel");
    return false;
  }
  const tw_tensor* q = rows::require_output(call, "q", TW_INT8, t, d);
  if (q == nullptr) return false;
  constexpr const char* kNames[] = {"token_scale", "channel_scale", "given_token_scale",
                                    "given_channel_scale"};
  p->token = mode == kToken || mode == kGivenToken;
  p->found = mode == kToken || mode == kChannel;
  const int64_t count = p->token ? t : d;
  const tw_tensor* scales = p->found ? rows::require_output(call, kNames[mode], TW_FP32, -1, count)
                                     : rows::require_like(call, kNames[mode], TW_FP32, -1, count);
  if (scales == nullptr) return false;
  p->x = rows::matrix(*x);
  p->q = rows::matrix(*q);
  p->scales = {static_cast<char*>(scales->data), scales->stride[0] * 4};
  p->dtype = x->dtype;
  return p->found || check_scales(call, p->scales, kNames[mode], count);
}

Matrix tokens(const Matrix& m, int64_t begin, int64_t end) {
  return {m.at(begin), end - begin, m.cols, m.row, m.lane, m.size};
}

Scales from(const Scales& s, int64_t first) { return {s.data + first * s.step, s.step}; }

void by_tokens(const Problem& p, const KernelTable& kernels, int threads) {
  const int64_t room = room_bytes(p.x.cols);
  std::vector<char> rooms(static_cast<size_t>(threads * room));
  parallel_for(p.x.rows, threads, [&](int64_t begin, int64_t end, int index) {
    const Block block{tokens(p.x, begin, end), tokens(p.q, begin, end), p.dtype, rooms.data() + index * room};
    kernels.by_token(block, from(p.scales, begin), p.found);
  });
}

// Scales that are found need all tokens of their channels; given ones none but their own.
void by_channels(const Problem& p, const KernelTable& kernels, int threads) {
  const int64_t room = room_bytes(kChannels), blocks = (p.x.cols + kChannels - 1) / kChannels;
  std::vector<char> rooms(static_cast<size_t>(threads * room));
  const auto columns = [&](int64_t at, int64_t begin, int64_t end, int index) {
    const int64_t first = at * kChannels, last = std::min(first + kChannels, p.x.cols);
    const Block block{tokens(p.x, begin, end).columns(first, last),
                      tokens(p.q, begin, end).columns(first, last), p.dtype, rooms.data() + index * room};
    kernels.by_channel(block, from(p.scales, first), p.found);
  };
  if (p.found) {
    parallel_for(blocks, threads, [&](int64_t begin, int64_t end, int index) {
      for (int64_t at = begin; at < end; ++at) columns(at, 0, p.x.rows, index);
    });
    return;
  }
  parallel_for(p.x.rows, threads, [&](int64_t begin, int64_t end, int index) {
    for (int64_t at = 0; at < blocks; ++at) columns(at, begin, end, index);
  });
}

int quantize(const Call& call) {
  Level level;
  if (!current_level(&level)) return call.refuse("%s", level_error());
  Problem p{};
  if (!read(call, &p)) return TW_REFUSED;
  // Scales are found even of nothing: they are 1.
  if (p.token ? p.x.rows == 0 : p.x.cols == 0) return TW_OK;
  const int64_t bytes = p.x.rows * p.x.cols * (p.x.size + 1);
  if (p.token) {
    by_tokens(p, kernels_of(level), rows::threads_for(call, bytes, p.x.rows));
  } else {
    by_channels(p, kernels_of(level),
                rows::threads_for(call, bytes, p.found ? p.x.cols / kChannels + 1 : p.x.rows));
  }
  return TW_OK;
}

}  // namespace
}  // namespace tw::quantize

TW_EXPORT int tw_host_quantize(const tw_call* call) { return tw::quantize::quantize(tw::Call(*call)); }
