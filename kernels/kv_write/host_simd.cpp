// The encoding and moving half of the host kv_write; compiled once per ISA level with -DTW_ISA=<level>.
#include "_host/workspace.hpp"
#include "_kv/host_encode.hpp"
#include "_kv/host_move.hpp"
#include "kv_write/host_kernels.hpp"

namespace tw::kv_write::TW_ISA {
namespace {

using namespace tw::TW_ISA;

int64_t row_floats(int64_t d) { return padded(d) + kSlack; }

// The parts of a thread's scratch: fp32 rows of a page, what keys are scaled with, and codes to be placed.
struct Scratch {
  Scratch(char* memory, int64_t d, int64_t row_bytes) {
    pitch = row_floats(d);
    code_pitch = round_up(row_bytes + kSlack, kAlign);
    rows = reinterpret_cast<float*>(memory);
    r = rows + kv::kPage * pitch;
    from = r + pitch;
    scale = reinterpret_cast<uint16_t*>(from + pitch);
    zero = scale + pitch;
    codes = reinterpret_cast<char*>(zero + pitch);
  }
  static int64_t bytes(int64_t d, int64_t row_bytes) {
    const int64_t pitch = row_floats(d);
    return ((kv::kPage + 2) * 4 + 2 * 2) * pitch + kv::kPage * round_up(row_bytes + kSlack, kAlign);
  }
  float *rows, *r, *from;
  uint16_t *scale, *zero;
  char* codes;
  int64_t pitch, code_pitch;
};

int64_t scratch_bytes(int64_t d, int64_t row_bytes) { return Scratch::bytes(d, row_bytes); }

void reciprocals(const float* scale, int64_t step, int64_t d, float* to) {
  for (int64_t i = 0; i < d; ++i) to[i] = 1.0f / scale[i * step];
}

// Rows of `count` tokens and one head, `pitch` bytes apart, to their page.
template <bool Stream>
void place(const Job& job, const Side& side, const kv::Run& run, int64_t h, const char* from, int64_t pitch) {
  char* page = side.cache.data + run.page * side.cache.page_bytes;
  if (job.nz) {
    rows_to_nz<Stream>(page + h * blocks_of(side.cache.row_bytes) * kBlock, run.first, run.count, from, pitch,
                       side.cache.row_bytes);
    return;
  }
  const int64_t token_bytes = job.heads * side.cache.row_bytes;
  char* to = page + run.first * token_bytes + h * side.cache.row_bytes;
  for (int64_t t = 0; t < run.count; ++t) {
    copy_bytes<false>(to + t * token_bytes, from + t * pitch, side.cache.row_bytes);
  }
}

bool elements_are_neighbours(const Job& job, const Side& side) {
  return side.d <= 1 || side.x.s2 == job.element_size;
}

template <bool Stream>
void write_floats(const Job& job, const Side& side, const kv::Run& run, const Scratch& s) {
  const int64_t token_bytes = job.heads * side.cache.row_bytes;
  const char* first = side.x.at(run.token, 0);
  const bool dense = elements_are_neighbours(job, side);
  if (!job.nz && dense && (job.heads == 1 || side.x.s1 == side.cache.row_bytes)) {
    char* to = side.cache.data + run.page * side.cache.page_bytes + run.first * token_bytes;
    if (run.count == 1 || side.x.s0 == token_bytes) {
      copy_bytes<Stream>(to, first, run.count * token_bytes);
      return;
    }
    for (int64_t t = 0; t < run.count; ++t) {
      copy_bytes<Stream>(to + t * token_bytes, first + t * side.x.s0, token_bytes);
    }
    return;
  }
  for (int64_t h = 0; h < job.heads; ++h) {
    const char* from = first + h * side.x.s1;
    if (dense) {
      place<Stream>(job, side, run, h, from, side.x.s0);
      continue;
    }
    for (int64_t t = 0; t < run.count; ++t) {
      gather_elements(s.codes + t * s.code_pitch, from + t * side.x.s0, side.x.s2, side.d, job.element_size);
    }
    place<Stream>(job, side, run, h, s.codes, s.code_pitch);
  }
}

// encode(row) on the head's vector of a token: as it lies where that can be (`direct`), else widened in
// scratch.
template <int32_t E, class Encode>
TW_INLINE void on_row(const Side& side, int64_t token, int64_t h, bool direct, float* room,
                      const Encode& encode) {
  const char* from = side.x.at(token, h);
  if (direct) return encode(Raw<E>{from});
  widen_row(from, side.x.s2, E, side.d, room);
  encode(Widened{room});
}

// Static and dynamic int8.
template <int32_t E>
void write_bytes(const Job& job, const Side& side, const kv::Run& run, const Scratch& s) {
  const bool direct = elements_are_neighbours(job, side) && side.d % kLanes == 0;
  const auto encode = [&](int64_t t, int64_t h, int8_t* codes) {
    on_row<E>(side, run.token + t, h, direct, s.rows, [&](const auto& row) TW_BODY {
      if (job.format == kC8S)
        return codes8(row, side.d, PerChannel{side.inverse + h * side.inverse_row}, codes);
      const float scale = token_scale8(row, side.d);
      codes8(row, side.d, PerOwnRow(1.0f / scale), codes);
      std::memcpy(side.token_scale.at(run.page, run.first + t, h), &scale, sizeof scale);
    });
  };
  if (direct && !job.nz) {
    char* to = side.cache.data + run.page * side.cache.page_bytes + run.first * job.heads * side.d;
    for (int64_t t = 0; t < run.count; ++t) {
      for (int64_t h = 0; h < job.heads; ++h, to += side.d) encode(t, h, reinterpret_cast<int8_t*>(to));
    }
    return;
  }
  for (int64_t h = 0; h < job.heads; ++h) {
    for (int64_t t = 0; t < run.count; ++t)
      encode(t, h, reinterpret_cast<int8_t*>(s.codes + t * s.code_pitch));
    place<false>(job, side, run, h, s.codes, s.code_pitch);
  }
}

template <int32_t E>
void write_values4(const Job& job, const Side& side, const kv::Run& run, const Scratch& s) {
  if (side.d == 0) return;
  const bool direct = elements_are_neighbours(job, side) && side.d % (4 * kLanes) == 0;
  for (int64_t h = 0; h < job.heads; ++h) {
    for (int64_t t = 0; t < run.count; ++t) {
      on_row<E>(side, run.token + t, h, direct, s.rows, [&](const auto& row) TW_BODY {
        const Range4 range = token_range4(row, side.d);
        codes4(row, side.d, PerRowFrom(1.0f / half_value(range.scale), half_value(range.zero)),
               reinterpret_cast<int16_t*>(s.codes + t * s.code_pitch));
        std::memcpy(side.token_scale.at(run.page, run.first + t, h), &range.scale, sizeof range.scale);
        std::memcpy(side.token_zero.at(run.page, run.first + t, h), &range.zero, sizeof range.zero);
      });
    }
    place<false>(job, side, run, h, s.codes, s.code_pitch);
  }
}

// Keys of a page that stays open, to their row of k_open.
void write_open(const Job& job, const kv::Run& run, int64_t row) {
  const Side& side = job.key;
  for (int64_t t = 0; t < run.count; ++t) {
    for (int64_t h = 0; h < job.heads; ++h) {
      char* to = job.open.at(row, run.first + t, h);
      const char* from = side.x.at(run.token + t, h);
      if (elements_are_neighbours(job, side)) {
        copy_bytes<false>(to, from, side.d * job.element_size);
      } else {
        gather_elements(to, from, side.x.s2, side.d, job.element_size);
      }
    }
  }
}

// Keys of one head of a page from `row_of(t)`: codes in scratch, scales and zeros in their tensors.
template <class RowOf>
TW_INLINE void encode_keys4(const Job& job, int64_t page, int64_t h, const RowOf& row_of, const Scratch& s) {
  const int64_t d = job.key.d;
  page_range4(row_of, kv::kPage, d, {s.scale, s.zero, s.r, s.from});
  for (int64_t t = 0; t < kv::kPage; ++t) {
    codes4(row_of(t), d, PerChannelFrom{s.r, s.from}, reinterpret_cast<int16_t*>(s.codes + t * s.code_pitch));
  }
  copy_bytes<false>(job.page_scale.at(page, h), s.scale, d * 2);
  copy_bytes<false>(job.page_zero.at(page, h), s.zero, d * 2);
}

// Keys of a page whose last token is in the run: earlier ones come from k_open.
template <int32_t E>
void close_page(const Job& job, const kv::Run& run, int64_t row, const Scratch& s) {
  const Side& side = job.key;
  const kv::Run whole{run.token, run.page, 0, static_cast<int32_t>(kv::kPage)};
  const bool direct = elements_are_neighbours(job, side) && side.d % (4 * kLanes) == 0;
  for (int64_t h = 0; h < job.heads; ++h) {
    const auto from = [&](int64_t t) {
      return t < run.first ? job.open.at(row, t, h) : side.x.at(run.token + t - run.first, h);
    };
    if (direct) {
      encode_keys4(job, run.page, h, [&](int64_t t) TW_BODY { return Raw<E>{from(t)}; }, s);
    } else {
      for (int64_t t = 0; t < kv::kPage; ++t) {
        const int64_t lane = t < run.first ? job.element_size : side.x.s2;
        widen_row(from(t), lane, E, side.d, s.rows + t * s.pitch);
      }
      encode_keys4(job, run.page, h, [&](int64_t t) TW_BODY { return Widened{s.rows + t * s.pitch}; }, s);
    }
    place<false>(job, side, whole, h, s.codes, s.code_pitch);
  }
}

template <int32_t E>
void write_keys4(const Job& job, const kv::Run& run, const Scratch& s) {
  const int64_t row = kv::SlotPlan::value(*job.open_row, run.token);
  if (run.first + run.count == kv::kPage) {
    close_page<E>(job, run, row, s);
  } else {
    write_open(job, run, row);
  }
}

template <int32_t E>
void write_codes(const Job& job, const kv::Run& run, const Scratch& key, const Scratch& value) {
  if (job.format == kKV4) {
    write_keys4<E>(job, run, key);
    write_values4<E>(job, job.value, run, value);
  } else {
    write_bytes<E>(job, job.key, run, key);
    write_bytes<E>(job, job.value, run, value);
  }
}

template <bool Stream>
void write_both(const Job& job, const kv::Run& run, const Scratch& key, const Scratch& value) {
  write_floats<Stream>(job, job.key, run, key);
  write_floats<Stream>(job, job.value, run, value);
}

void write_run(const Job& job, const kv::Run& run, const Scratch& key, const Scratch& value) {
  if (job.format == kFloat) {
    // Parts of a page do not gain by going past the caches.
    return job.stream && run.count == kv::kPage ? write_both<true>(job, run, key, value)
                                                : write_both<false>(job, run, key, value);
  }
  switch (job.element) {
    case kRowF32:
      return write_codes<kRowF32>(job, run, key, value);
    case kRowBF16:
      return write_codes<kRowBF16>(job, run, key, value);
    case kRowF16:
      return write_codes<kRowF16>(job, run, key, value);
  }
}

void write(const Job& job, const kv::Run* runs, int64_t count, char* memory) {
  const Scratch key(memory, job.key.d, job.key.cache.row_bytes);
  const Scratch value(memory, job.value.d, job.value.cache.row_bytes);
  for (const kv::Run* run = runs; run != runs + count; ++run) {
    if (run->page >= 0) write_run(job, *run, key, value);
  }
  if (job.stream) finish_stream();
}

constexpr Table kTable = {scratch_bytes, row_floats, reciprocals, write};

}  // namespace

const Table& kernels() { return kTable; }

}  // namespace tw::kv_write::TW_ISA
