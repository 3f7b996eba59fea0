// What the instruction levels of nz_kv share with its checks.
#pragma once

#include <cstdint>

#include "_kv/host_slots.hpp"

namespace tw::nz_kv {

// Rows [T, heads, row_bytes] of tokens; strides in bytes. `lane` is the distance of elements of `size` bytes.
struct Rows {
  char* data;
  int64_t token, head, lane, size;
};

struct Job {
  Rows rows;
  char* pages;
  int64_t page_bytes;  // from one page to the next
  int64_t heads, row_bytes;
};

// `scratch` holds scratch_bytes(job). Each takes `count` runs.
struct Table {
  void (*write)(const Job& job, const kv::Run* runs, int64_t count, bool stream, char* scratch);
  void (*read)(const Job& job, const kv::Run* runs, int64_t count, char* scratch);
};

inline int64_t scratch_bytes(const Job& job) { return kv::kPage * round_up(job.row_bytes, kAlign); }

}  // namespace tw::nz_kv
