// The encoding and decoding half of the host kv_residual; compiled once per ISA level with -DTW_ISA=<level>.
#include "_host/workspace.hpp"
#include "_kv/host_move.hpp"
#include "_kv/host_residual.hpp"
#include "kv_residual/host_kernels.hpp"

namespace tw::kv_residual::TW_ISA {
namespace {

using namespace tw::TW_ISA;
using kv::kPage;

int64_t row_floats(int64_t d) { return padded(d) + kSlack; }

struct Scratch {
  Scratch(char* memory, int64_t d, int64_t row_bytes) {
    pitch = row_floats(d);
    code_pitch = round_up(row_bytes + 2 * kSlack, kAlign);
    rows = reinterpret_cast<float*>(memory);
    r = rows + kPage * pitch;
    scale = r + pitch;
    zero = scale + pitch;
    other = zero + pitch;
    scale16 = reinterpret_cast<uint16_t*>(other + pitch);
    zero16 = scale16 + pitch;
    pool = reinterpret_cast<int16_t*>(zero16 + pitch);
    codes = reinterpret_cast<char*>(pool + pitch);
  }
  static int64_t bytes(int64_t d, int64_t row_bytes) {
    return ((kPage + 4) * 4 + 3 * 2) * row_floats(d) + kPage * round_up(row_bytes + 2 * kSlack, kAlign);
  }
  float *rows, *r, *scale, *zero, *other;
  uint16_t *scale16, *zero16;
  int16_t* pool;
  char* codes;
  int64_t pitch, code_pitch;

  float* row(int64_t t) const { return rows + t * pitch; }
  char* code(int64_t t) const { return codes + t * code_pitch; }
};

int64_t scratch_bytes(int64_t d, int64_t row_bytes) { return Scratch::bytes(d, row_bytes); }

void channel_rows(const float* scale, int64_t step, int64_t d, float* copy, float* inverse) {
  for (int64_t i = 0; i < d; ++i) {
    copy[i] = scale[i * step];
    inverse[i] = 1.0f / copy[i];
  }
}

// One page and head of a call.
struct Part {
  const Job& job;
  const Scratch& s;
  const Place& place;
  int64_t page, n, h;
  int64_t pool_row(int64_t t) const { return place.rank + row_in(place.mask, t); }
  int64_t fpool_row(int64_t t) const { return place.frank + row_in(place.fmask, t); }
  static int64_t row_in(uint32_t mask, int64_t t) { return __builtin_popcount(mask & ((1u << t) - 1)); }
};

template <class T>
void put(char* to, T value) {
  std::memcpy(to, &value, sizeof value);
}
template <class T>
T got(const char* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// Codes of token t under its scaling, and its residual if it has one.
template <class S>
void encode_token(const Part& p, int64_t t, const S& scaling) {
  const Job& job = p.job;
  const float* row = p.s.row(t);
  const bool selected = (p.place.mask >> t & 1) != 0;
  if (!selected || job.e3m0) plain_codes(row, job.d, scaling, p.s.code(t));
  if (!selected) return;
  if (job.e3m0) {
    put(job.pool_scale.at(p.pool_row(t)), e3m0_codes(row, job.d, scaling, p.s.other, p.s.pool));
  } else {
    nested_codes(row, job.d, scaling, p.s.code(t), p.s.pool);
  }
  copy_bytes<false>(job.pool.at(p.pool_row(t)), p.s.pool, job.d / 4 * 2);
}

template <class Scalings>
void encode_page(const Part& p, const Scalings& scaling_of) {
  const Job& job = p.job;
  for (int64_t t = 0; t < kPage; ++t) encode_token(p, t, scaling_of(t));
  char* page = job.codes.data + p.page * job.codes.page_bytes;
  const int64_t row_bytes = job.codes.row_bytes;
  if (job.nz) {
    rows_to_nz<false>(page + p.h * blocks_of(row_bytes) * kBlock, 0, kPage, p.s.codes, p.s.code_pitch,
                      row_bytes);
    return;
  }
  for (int64_t t = 0; t < kPage; ++t) {
    copy_bytes<false>(page + (t * job.heads + p.h) * row_bytes, p.s.code(t), row_bytes);
  }
}

StaticBytes static_bytes(const Job& job, int64_t h) {
  return {{}, job.inverse + h * job.channel_row, job.channel_scale + h * job.channel_row};
}
TokenBytes token_bytes(float scale) { return {{}, bcast(1.0f / scale), bcast(scale)}; }
TokenNibbles token_nibbles(uint16_t scale16, uint16_t zero16) {
  const float scale = half_value(scale16);
  return {{}, bcast(1.0f / scale), bcast(scale), bcast(half_value(zero16))};
}

void widen_halves(const uint16_t* from, int64_t d, float* to) {
  for (int64_t i = 0; i < d; i += kLanes) store(to + i, load_fp16(from + i));
}

void encode_keys4(const Part& p) {
  const Job& job = p.job;
  const Scratch& s = p.s;
  page_range4([&](int64_t t) { return Widened{s.row(t)}; }, kPage, job.d, {s.scale16, s.zero16, s.r, s.zero});
  widen_halves(s.scale16, job.d, s.scale);
  encode_page(p, [&](int64_t) { return PageNibbles{{}, s.r, s.scale, s.zero}; });
  copy_bytes<false>(job.page_scale.at(p.page, p.h), s.scale16, job.d * 2);
  copy_bytes<false>(job.page_zero.at(p.page, p.h), s.zero16, job.d * 2);
}

void encode(const Part& p) {
  const Job& job = p.job;
  switch (job.format) {
    case kC8S:
      return encode_page(p, [&](int64_t) { return static_bytes(job, p.h); });
    case kC8D:
      return encode_page(p, [&](int64_t t) {
        const float scale = token_scale8(Widened{p.s.row(t)}, job.d);
        put(job.token_scale.at(p.page, t, p.h), scale);
        return token_bytes(scale);
      });
    case kKey4:
      return encode_keys4(p);
    case kValue4:
      return encode_page(p, [&](int64_t t) {
        const Range4 range = token_range4(Widened{p.s.row(t)}, job.d);
        put(job.token_scale.at(p.page, t, p.h), range.scale);
        put(job.token_zero.at(p.page, t, p.h), range.zero);
        return token_nibbles(range.scale, range.zero);
      });
  }
}

void write_part(const Part& p) {
  const Job& job = p.job;
  for (int64_t t = 0; t < kPage; ++t) {
    const char* from = job.rows.at(p.n, t, p.h);
    widen_row(from, job.rows.s3, job.element, job.d, p.s.row(t));
    if ((p.place.fmask >> t & 1) == 0) continue;
    char* to = job.fpool.at(p.fpool_row(t));
    gather_elements(to, from, job.rows.s3, job.d, job.element_size);
  }
  encode(p);
  put(job.mask.at(p.page, p.h), static_cast<uint16_t>(p.place.mask));
  put(job.fmask.at(p.page, p.h), static_cast<uint16_t>(p.place.fmask));
  put(job.rank.at(p.page, p.h), p.place.rank);
  put(job.frank.at(p.page, p.h), p.place.frank);
}

template <class S>
void decode_token(const Part& p, int64_t t, const S& scaling) {
  const Job& job = p.job;
  float* row = p.s.row(t);
  if ((p.place.fmask >> t & 1) != 0) {
    widen_row(job.fpool.at(p.fpool_row(t)), job.element_size, job.element, job.d, row);
    return;
  }
  codes_to_floats<S>(p.s.code(t), job.d, row);
  const bool selected = (p.place.mask >> t & 1) != 0;
  if (selected) {
    copy_bytes<false>(p.s.pool, job.pool.at(p.pool_row(t)), job.d / 4 * 2);
  }
  if (selected && !job.e3m0) {
    nibbles_to_floats<true>(p.s.pool, job.d, p.s.other, 0x1p-4f);
    add_row(row, p.s.other, job.d);
  }
  dequantise(row, job.d, scaling);
  if (selected && job.e3m0) {
    e3m0_to_floats(p.s.pool, job.d, got<float>(job.pool_scale.at(p.pool_row(t))), p.s.other);
    add_row(row, p.s.other, job.d);
  }
}

template <class Scalings>
void decode_page(const Part& p, const Scalings& scaling_of) {
  for (int64_t t = 0; t < kPage; ++t) decode_token(p, t, scaling_of(t));
}

void decode(const Part& p) {
  const Job& job = p.job;
  const Scratch& s = p.s;
  switch (job.format) {
    case kC8S:
      return decode_page(p, [&](int64_t) { return static_bytes(job, p.h); });
    case kC8D:
      return decode_page(
          p, [&](int64_t t) { return token_bytes(got<float>(job.token_scale.at(p.page, t, p.h))); });
    case kKey4:
      widen_row(job.page_scale.at(p.page, p.h), 2, kRowF16, job.d, s.scale);
      widen_row(job.page_zero.at(p.page, p.h), 2, kRowF16, job.d, s.zero);
      return decode_page(p, [&](int64_t) { return PageNibbles{{}, s.r, s.scale, s.zero}; });
    case kValue4:
      return decode_page(p, [&](int64_t t) {
        return token_nibbles(got<uint16_t>(job.token_scale.at(p.page, t, p.h)),
                             got<uint16_t>(job.token_zero.at(p.page, t, p.h)));
      });
  }
}

void read_part(const Part& p) {
  const Job& job = p.job;
  const int64_t row_bytes = job.codes.row_bytes;
  const char* page = job.codes.data + p.page * job.codes.page_bytes;
  if (job.nz) {
    nz_to_rows(p.s.codes, p.s.code_pitch, page + p.h * blocks_of(row_bytes) * kBlock, 0, kPage, row_bytes);
  } else {
    for (int64_t t = 0; t < kPage; ++t) {
      copy_bytes<false>(p.s.code(t), page + (t * job.heads + p.h) * row_bytes, row_bytes);
    }
  }
  decode(p);
  for (int64_t t = 0; t < kPage; ++t) {
    narrow_row(p.s.row(t), job.d, job.element, job.rows.at(p.n, t, p.h), job.rows.s3);
  }
}

template <void (*Do)(const Part&)>
void each(const Job& job, int64_t begin, int64_t end, char* memory) {
  const Scratch s(memory, job.d, job.codes.row_bytes);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t n = i / job.heads;
    const int64_t page = static_cast<const int32_t*>(job.page_ids->data)[n * job.page_ids->stride[0]];
    Do({job, s, job.places[i], page, n, i % job.heads});
  }
}

constexpr Table kTable = {scratch_bytes, row_floats, channel_rows, each<write_part>, each<read_part>};

}  // namespace

const Table& kernels() { return kTable; }

}  // namespace tw::kv_residual::TW_ISA
