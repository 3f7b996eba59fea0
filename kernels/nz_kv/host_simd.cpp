// The moving half of the host nz_kv; compiled once per ISA level with -DTW_ISA=<level>.
#include "_kv/host_move.hpp"
#include "nz_kv/host_kernels.hpp"

namespace tw::nz_kv::TW_ISA {
namespace {

using namespace tw::TW_ISA;

int64_t head_bytes(const Job& job) { return blocks_of(job.row_bytes) * kBlock; }

// Rows of a run and head as neighbours in memory; brought together in `scratch` where elements are apart.
template <bool Stream>
void write_run(const Job& job, const kv::Run& run, char* scratch) {
  const Rows& rows = job.rows;
  const int64_t pitch = round_up(job.row_bytes, kAlign);
  char* page = job.pages + run.page * job.page_bytes;
  for (int64_t h = 0; h < job.heads; ++h) {
    const char* from = rows.data + run.token * rows.token + h * rows.head;
    int64_t token_bytes = rows.token;
    if (rows.lane != rows.size) {
      for (int64_t t = 0; t < run.count; ++t) {
        gather_elements(scratch + t * pitch, from + t * rows.token, rows.lane, job.row_bytes / rows.size,
                        rows.size);
      }
      from = scratch;
      token_bytes = pitch;
    }
    rows_to_nz<Stream>(page + h * head_bytes(job), run.first, run.count, from, token_bytes, job.row_bytes);
  }
}

void write(const Job& job, const kv::Run* runs, int64_t count, bool stream, char* scratch) {
  for (const kv::Run* run = runs; run != runs + count; ++run) {
    if (run->page < 0) continue;
    // Parts of a cache line do not gain by going past the caches.
    if (stream && run->count == kv::kPage) {
      write_run<true>(job, *run, scratch);
    } else {
      write_run<false>(job, *run, scratch);
    }
  }
  if (stream) finish_stream();
}

void clear_run(const Job& job, const kv::Run& run) {
  if (job.row_bytes == 0) return;  // no memory, which memset must not be given
  const Rows& rows = job.rows;
  for (int64_t t = run.token; t < run.token + run.count; ++t) {
    for (int64_t h = 0; h < job.heads; ++h) {
      char* to = rows.data + t * rows.token + h * rows.head;
      if (rows.lane == rows.size) {
        std::memset(to, 0, static_cast<size_t>(job.row_bytes));
        continue;
      }
      for (int64_t i = 0; i < job.row_bytes / rows.size; ++i) {
        std::memset(to + i * rows.lane, 0, static_cast<size_t>(rows.size));
      }
    }
  }
}

void read_run(const Job& job, const kv::Run& run, char* scratch) {
  const Rows& rows = job.rows;
  const int64_t pitch = round_up(job.row_bytes, kAlign);
  const bool apart = rows.lane != rows.size;
  const char* page = job.pages + run.page * job.page_bytes;
  for (int64_t h = 0; h < job.heads; ++h) {
    char* to = rows.data + run.token * rows.token + h * rows.head;
    nz_to_rows(apart ? scratch : to, apart ? pitch : rows.token, page + h * head_bytes(job), run.first,
               run.count, job.row_bytes);
    for (int64_t t = 0; apart && t < run.count; ++t) {
      scatter_elements(to + t * rows.token, rows.lane, scratch + t * pitch, job.row_bytes / rows.size,
                       rows.size);
    }
  }
}

void read(const Job& job, const kv::Run* runs, int64_t count, char* scratch) {
  for (const kv::Run* run = runs; run != runs + count; ++run) {
    if (run->page < 0) {
      clear_run(job, *run);
    } else {
      read_run(job, *run, scratch);
    }
  }
}

constexpr Table kTable = {write, read};

}  // namespace

const Table& kernels() { return kTable; }

}  // namespace tw::nz_kv::TW_ISA
