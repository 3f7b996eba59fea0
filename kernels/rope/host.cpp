// y[T, H, D] = x with its first ROT channels turned, on the CPU: checks, threads, and what has gaps between
// channels.
#include <algorithm>
#include <utility>
#include <vector>

#include "_host/call.hpp"
#include "_host/cpu.hpp"
#include "_host/export.hpp"
#include "_host/half.hpp"
#include "_host/levels.hpp"
#include "_host/thread_pool.hpp"
#include "rope/host_kernels.hpp"

TW_LEVELS(rope, KernelTable)

namespace tw::rope {

namespace {

// Below this much work waking a thread costs more than it saves.
constexpr int64_t kBytesAThread = 65536;

struct Problem {
  const tw_tensor *x, *positions, *table, *y;
  int64_t tokens, heads, channels, turned;
  Kind kind;
  bool neox;
  bool contiguous;  // channels of x and y, and rows of the table
};

int32_t position(const Problem& p, int64_t token) {
  return *reinterpret_cast<const int32_t*>(element(*p.positions, token * p.positions->stride[0]));
}

bool unit(const tw_tensor& t, int32_t dim) { return t.shape[dim] <= 1 || t.stride[dim] == 1; }

// No two elements of y share an address, as far as strides in descending order tell.
bool overlaps(const tw_tensor& y) {
  if (Call::count(y) <= 1) return false;
  std::vector<std::pair<int64_t, int64_t>> dims;
  for (int32_t i = 0; i < y.ndim; ++i) {
    if (y.shape[i] > 1) dims.emplace_back(y.stride[i] < 0 ? -y.stride[i] : y.stride[i], y.shape[i]);
  }
  std::sort(dims.begin(), dims.end());
  int64_t reach = 0;
  for (const auto& [stride, size] : dims) {
    if (stride <= reach) return true;
    reach += stride * (size - 1);
  }
  return false;
}

bool read(const Call& call, Problem* p) {
  p->x = call.require("x", 3);
  if (p->x == nullptr) return false;
  p->positions = call.require("positions", 1);
  if (p->positions == nullptr) return false;
  p->table = call.require("cos_sin", 2);
  if (p->table == nullptr) return false;
  p->y = call.require("y", 3);
  if (p->y == nullptr) return false;
  p->tokens = p->x->shape[0];
  p->heads = p->x->shape[1];
  p->channels = p->x->shape[2];
  p->turned = p->table->shape[1];
  const int64_t style = call.attr("style", 0);
  if (style != 0 && style != 1) {
    call.refuse("style is %lld; accepted: 0 (neox) or 1 (gptj)", static_cast<long long>(style));
    return false;
  }
  p->neox = style == 0;
  switch (p->x->dtype) {
    case TW_FP32:
      p->kind = kF32;
      break;
    case TW_BF16:
      p->kind = kBF16;
      break;
    case TW_FP16:
      p->kind = kF16;
      break;
    default:
      call.refuse("tensor \"x\" is %s; accepted: fp32, bf16, fp16", dtype_name(p->x->dtype));
      return false;
  }
  if (!call.check_dtype(*p->y, p->x->dtype) || !call.check_dtype(*p->positions, TW_INT32) ||
      !call.check_dtype(*p->table, TW_FP32) || !call.check_dim(*p->positions, 0, p->tokens)) {
    return false;
  }
  for (int32_t i = 0; i < 3; ++i) {
    if (!call.check_dim(*p->y, i, p->x->shape[i])) return false;
  }
  if (p->turned % 2 != 0 || p->turned > p->channels) {
    call.refuse("\"cos_sin\" turns %lld of %lld channels; accepted: an even number, at most all",
                static_cast<long long>(p->turned), static_cast<long long>(p->channels));
    return false;
  }
  if (overlaps(*p->y)) {
    call.refuse("strides %lld,%lld,%lld make elements of \"y\" overlap",
                static_cast<long long>(p->y->stride[0]), static_cast<long long>(p->y->stride[1]),
                static_cast<long long>(p->y->stride[2]));
    return false;
  }
  p->contiguous = unit(*p->x, 2) && unit(*p->y, 2) && unit(*p->table, 1);
  return true;
}

bool check_positions(const Call& call, const Problem& p) {
  for (int64_t t = 0; t < p.tokens; ++t) {
    const int32_t at = position(p, t);
    if (at >= 0 && at < p.table->shape[0]) continue;
    call.refuse("positions[%lld] is %d; accepted: 0 to %lld", static_cast<long long>(t), at,
                static_cast<long long>(p.table->shape[0] - 1));
    return false;
  }
  return true;
}

float get(const tw_tensor& t, int64_t offset) {
  const char* at = element(t, offset);
  if (t.dtype == TW_FP32) return *reinterpret_cast<const float*>(at);
  const uint16_t bits = *reinterpret_cast<const uint16_t*>(at);
  return t.dtype == TW_BF16 ? bf16_to_float(bits) : fp16_to_float(bits);
}

void put(const tw_tensor& t, int64_t offset, float value) {
  char* at = element(t, offset);
  if (t.dtype == TW_FP32) {
    *reinterpret_cast<float*>(at) = value;
  } else {
    *reinterpret_cast<uint16_t*>(at) = t.dtype == TW_BF16 ? float_to_bf16(value) : float_to_fp16(value);
  }
}

// One head of one token, any strides.
void turn_any(const Problem& p, int64_t token, int64_t head) {
  const int64_t half = p.turned / 2, row = position(p, token) * p.table->stride[0];
  const int64_t x = token * p.x->stride[0] + head * p.x->stride[1];
  const int64_t y = token * p.y->stride[0] + head * p.y->stride[1];
  for (int64_t i = 0; i < half; ++i) {
    const int64_t first = p.neox ? i : 2 * i, second = p.neox ? i + half : 2 * i + 1;
    const float cos = get(*p.table, row + i * p.table->stride[1]);
    const float sin = get(*p.table, row + (half + i) * p.table->stride[1]);
    const float a = get(*p.x, x + first * p.x->stride[2]), b = get(*p.x, x + second * p.x->stride[2]);
    put(*p.y, y + first * p.y->stride[2], a * cos - b * sin);
    put(*p.y, y + second * p.y->stride[2], b * cos + a * sin);
  }
  for (int64_t i = p.turned; i < p.channels; ++i) {
    const char* from = element(*p.x, x + i * p.x->stride[2]);
    std::copy_n(from, dtype_size(p.x->dtype), element(*p.y, y + i * p.y->stride[2]));
  }
}

// Rows [begin, end) of the T * H heads.
void turn(const Problem& p, const KernelTable& kernels, float* room, int64_t begin, int64_t end) {
  for (int64_t at = begin; at < end;) {
    const int64_t token = at / p.heads, head = at % p.heads;
    const int64_t count = std::min(p.heads - head, end - at);
    if (p.contiguous) {
      const Heads heads{
          element(*p.x, token * p.x->stride[0] + head * p.x->stride[1]),
          element(*p.y, token * p.y->stride[0] + head * p.y->stride[1]),
          count,
          p.x->stride[1],
          p.y->stride[1],
          p.channels,
          p.turned,
          reinterpret_cast<const float*>(element(*p.table, position(p, token) * p.table->stride[0])),
          room};
      (p.neox ? kernels.neox : kernels.gptj)[p.kind](heads);
    } else {
      for (int64_t i = 0; i < count; ++i) turn_any(p, token, head + i);
    }
    at += count;
  }
}

int rope(const Call& call) {
  Level level;
  if (!current_level(&level)) return call.refuse("%s", level_error());
  Problem p{};
  if (!read(call, &p) || !check_positions(call, p)) return TW_REFUSED;
  const int64_t rows = p.tokens * p.heads;
  if (rows == 0 || p.channels == 0) return TW_OK;
  const int64_t bytes = 2 * rows * p.channels * dtype_size(p.x->dtype);
  const int64_t most = std::clamp<int64_t>(bytes / kBytesAThread, 1, resolve_threads(call.threads()));
  const int64_t room = 2 * p.turned + 16;
  std::vector<float> rooms(static_cast<size_t>(most * room));
  parallel_for(rows, static_cast<int>(most), [&](int64_t begin, int64_t end, int index) {
    turn(p, kernels_of(level), rooms.data() + index * room, begin, end);
  });
  return TW_OK;
}

}  // namespace
}  // namespace tw::rope

TW_EXPORT int tw_host_rope(const tw_call* call) { return tw::rope::rope(tw::Call(*call)); }
