// Weights of files for Python: ggml's blocks as fp32 or codes, panels that kernels read, sums of memory.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <string>

#include "errors.hpp"
#include "module.hpp"

namespace py = pybind11;

namespace tw::bindings {
namespace {

constexpr int64_t kBlock = 32;
constexpr int64_t kPanel = 16;

// A contiguous buffer of Python; `bytes` is all of it.
struct Memory {
  py::buffer_info info;
  uint8_t* data;
  int64_t bytes;

  Memory(const py::buffer& buffer, const char* name, bool writable) : info(buffer.request(writable)) {
    int64_t step = info.itemsize;
    for (auto i = info.ndim; i-- > 0;) {
      if (info.shape[i] > 1 && info.strides[i] != step) {
        raise("UsageError", std::string(name) + " is not contiguous; accepted: contiguous memory");
      }
      step *= info.shape[i];
    }
    data = static_cast<uint8_t*>(info.ptr);
    bytes = info.size * info.itemsize;
  }
};

void expect(int64_t found, int64_t wanted, const char* what) {
  if (found != wanted) {
    raise("UsageError", std::string(what) + " has " + std::to_string(found) +
                            " bytes; accepted: " + std::to_string(wanted));
  }
}

template <class T>
T load(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// fp16 to fp32, exact. Without branches, so that loops over it become vectors.
float half(uint16_t bits) {
  const uint32_t magnitude = static_cast<uint32_t>(bits & 0x7fff) << 13;
  const float scaled = load<float>(&magnitude) * 0x1p112f;
  const uint32_t special = magnitude >= 0x0f800000 ? 0x7f800000 : 0;  // infinity, NaN
  const uint32_t value = load<uint32_t>(&scaled) | special | static_cast<uint32_t>(bits & 0x8000) << 16;
  return load<float>(&value);
}

void from_f16(const uint8_t* in, float* out) { *out = half(load<uint16_t>(in)); }

void from_bf16(const uint8_t* in, float* out) {
  const uint32_t bits = static_cast<uint32_t>(load<uint16_t>(in)) << 16;
  *out = load<float>(&bits);
}

void from_q8_0(const uint8_t* in, float* out) {
  const float d = half(load<uint16_t>(in));
  for (int64_t i = 0; i < kBlock; ++i) out[i] = d * static_cast<float>(static_cast<int8_t>(in[2 + i]));
}

void from_q4_0(const uint8_t* in, float* out) {
  const float d = half(load<uint16_t>(in));
  for (int64_t i = 0; i < kBlock / 2; ++i) {
    out[i] = d * static_cast<float>((in[2 + i] & 15) - 8);
    out[i + kBlock / 2] = d * static_cast<float>((in[2 + i] >> 4) - 8);
  }
}

void from_q4_1(const uint8_t* in, float* out) {
  const float d = half(load<uint16_t>(in));
  const float m = half(load<uint16_t>(in + 2));
  for (int64_t i = 0; i < kBlock / 2; ++i) {
    out[i] = d * static_cast<float>(in[4 + i] & 15) + m;  // the product is exact, fused or not
    out[i + kBlock / 2] = d * static_cast<float>(in[4 + i] >> 4) + m;
  }
}

struct Encoding {
  const char* name;
  int64_t values, bytes;
  void (*one)(const uint8_t*, float*);
};
constexpr std::array<Encoding, 5> kEncodings{{{"F16", 1, 2, from_f16},
                                              {"BF16", 1, 2, from_bf16},
                                              {"Q8_0", kBlock, 34, from_q8_0},
                                              {"Q4_0", kBlock, 18, from_q4_0},
                                              {"Q4_1", kBlock, 20, from_q4_1}}};

// The block's function is a template's argument, so that it is inlined.
template <size_t kWhich>
void all_blocks(const uint8_t* in, float* out, int64_t count) {
  constexpr Encoding encoding = kEncodings[kWhich];
  for (int64_t i = 0; i < count; ++i) encoding.one(in + i * encoding.bytes, out + i * encoding.values);
}

using AllBlocks = void (*)(const uint8_t*, float*, int64_t);
constexpr std::array<AllBlocks, kEncodings.size()> kAllBlocks{all_blocks<0>, all_blocks<1>, all_blocks<2>,
                                                              all_blocks<3>, all_blocks<4>};

void dequantize(const std::string& name, const py::buffer& encoded, const py::buffer& values) {
  const Memory in(encoded, "encoded", false);
  const Memory out(values, "values", true);
  for (size_t i = 0; i < kEncodings.size(); ++i) {
    const Encoding& encoding = kEncodings[i];
    if (name != encoding.name) continue;
    const int64_t blocks = in.bytes / encoding.bytes;
    expect(in.bytes, blocks * encoding.bytes, "encoded");
    expect(out.bytes, blocks * encoding.values * 4, "values");
    const py::gil_scoped_release released;
    kAllBlocks[i](in.data, reinterpret_cast<float*>(out.data), blocks);
    return;
  }
  raise("UsageError", "no encoding '" + name + "'; accepted: F16, BF16, Q8_0, Q4_0, Q4_1");
}

// Nibbles of Q4_0 and Q4_1 blocks as bytes, in the order of k; a block's factors stay in the file's order.
void unpack_q4(const py::buffer& encoded, int64_t factors, const py::buffer& codes,
               const py::buffer& shared) {
  const Memory in(encoded, "encoded", false);
  const Memory out(codes, "codes", true);
  const Memory heads(shared, "factors", true);
  if (factors != 1 && factors != 2) raise("UsageError", "a block of 4 bits has 1 or 2 factors");
  const int64_t head = 2 * factors, each = head + kBlock / 2, blocks = in.bytes / each;
  expect(in.bytes, blocks * each, "encoded");
  expect(out.bytes, blocks * kBlock, "codes");
  expect(heads.bytes, blocks * head, "factors");
  const py::gil_scoped_release released;
  for (int64_t b = 0; b < blocks; ++b) {
    const uint8_t* from = in.data + b * each;
    uint8_t* to = out.data + b * kBlock;
    std::memcpy(heads.data + b * head, from, static_cast<size_t>(head));
    for (int64_t i = 0; i < kBlock / 2; ++i) {
      to[i] = from[head + i] & 15;
      to[i + kBlock / 2] = from[head + i] >> 4;
    }
  }
}

// Rows of `words` words to [ceil(rows/16), words, 16]; 16 x 16 words at a time stay in the cache.
template <class Word>
void transpose(const uint8_t* in, uint8_t* out, int64_t rows, int64_t row_bytes) {
  constexpr int64_t size = sizeof(Word);
  const int64_t words = (row_bytes + size - 1) / size;
  const int64_t whole = row_bytes / size;
  for (int64_t first = 0; first < rows; first += kPanel) {
    uint8_t* panel = out + first * words * size;
    const int64_t lines = std::min(kPanel, rows - first);
    if (lines < kPanel || whole < words) std::memset(panel, 0, static_cast<size_t>(words * kPanel * size));
    for (int64_t g0 = 0; g0 < words; g0 += kPanel) {
      const int64_t end = std::min(g0 + kPanel, whole);
      for (int64_t c = 0; c < lines; ++c) {
        const uint8_t* row = in + (first + c) * row_bytes;
        for (int64_t g = g0; g < end; ++g) {
          const Word word = load<Word>(row + g * size);
          std::memcpy(panel + (g * kPanel + c) * size, &word, size);
        }
      }
    }
    if (whole < words) {
      for (int64_t c = 0; c < lines; ++c) {
        std::memcpy(panel + (whole * kPanel + c) * size, in + (first + c) * row_bytes + whole * size,
                    static_cast<size_t>(row_bytes - whole * size));
      }
    }
  }
}

// What both layouts ask of their memory; returns the bytes of a row.
int64_t row_bytes_of(const Memory& in, int64_t rows) {
  if (rows < 1 || in.bytes % rows != 0) {
    raise("UsageError", std::to_string(in.bytes) + " bytes are not " + std::to_string(rows) + " equal rows");
  }
  return in.bytes / rows;
}

void panels(const py::buffer& source, int64_t rows, int64_t word, const py::buffer& laid) {
  const Memory in(source, "source", false);
  const Memory out(laid, "laid", true);
  const int64_t row_bytes = row_bytes_of(in, rows);
  if (word != 2 && word != 4) raise("UsageError", "words of a panel are 2 or 4 bytes");
  const int64_t words = (row_bytes + word - 1) / word;
  expect(out.bytes, (rows + kPanel - 1) / kPanel * words * kPanel * word, "laid");
  const py::gil_scoped_release released;
  (word == 2 ? transpose<uint16_t> : transpose<uint32_t>)(in.data, out.data, rows, row_bytes);
}

// Codes [rows,K] of a byte each to [ceil(rows/16), ceil(K/32), 4, 16] words: see kernels/gemm_w4/formats.py.
void pack_codes(const py::buffer& source, int64_t rows, const py::buffer& laid) {
  const Memory in(source, "source", false);
  const Memory out(laid, "laid", true);
  const int64_t k = row_bytes_of(in, rows);
  const int64_t words = (k + kBlock - 1) / kBlock * 4;
  expect(out.bytes, (rows + kPanel - 1) / kPanel * words * kPanel * 4, "laid");
  const py::gil_scoped_release released;
  std::memset(out.data, 0, static_cast<size_t>(out.bytes));
  for (int64_t row = 0; row < rows; ++row) {
    const uint8_t* codes = in.data + row * k;
    uint8_t* column = out.data + (row / kPanel * words * kPanel + row % kPanel) * 4;
    for (int64_t w = 0; w * 8 < k; ++w) {
      uint64_t eight = 0;
      std::memcpy(&eight, codes + w * 8, static_cast<size_t>(std::min<int64_t>(8, k - w * 8)));
      eight &= 0x0f0f0f0f0f0f0f0f;
      const uint32_t packed = static_cast<uint32_t>(eight) | static_cast<uint32_t>(eight >> 32) << 4;
      std::memcpy(column + w * kPanel * 4, &packed, 4);
    }
  }
}

// Tells damage from the bytes as they were written; no protection against intent.
uint64_t checksum(const py::buffer& memory) {
  const Memory in(memory, "memory", false);
  const py::gil_scoped_release released;
  constexpr uint64_t prime = 0x9e3779b97f4a7c15;
  std::array<uint64_t, 4> lanes{1, 2, 3, 4};
  int64_t at = 0;
  for (; at + 32 <= in.bytes; at += 32) {
    for (size_t i = 0; i < 4; ++i) {
      lanes[i] = (lanes[i] ^ load<uint64_t>(in.data + at + 8 * static_cast<int64_t>(i))) * prime;
      lanes[i] ^= lanes[i] >> 32;
    }
  }
  // Spread over all bits: as it stands, a byte equal to the length would cancel it.
  uint64_t sum = (static_cast<uint64_t>(in.bytes) + 1) * prime;
  for (; at < in.bytes; ++at) sum = (sum ^ in.data[at]) * prime;
  for (const uint64_t lane : lanes) sum = (sum ^ lane ^ (sum >> 29)) * prime;
  return sum;
}

}  // namespace

void add_weights(py::module_& module) {
  module.def("dequantize", &dequantize, py::arg("encoding"), py::arg("encoded"), py::arg("values"),
             "Blocks of F16, BF16, Q8_0, Q4_0 or Q4_1 to fp32.");
  module.def("unpack_q4", &unpack_q4, py::arg("encoded"), py::arg("factors"), py::arg("codes"),
             py::arg("shared"),
             "Blocks of Q4_0 (1 factor) or Q4_1 (2) to a byte a code, and the factors as they stand.");
  module.def("panels", &panels, py::arg("source"), py::arg("rows"), py::arg("word"), py::arg("laid"),
             "Rows to panels of 16, the words of 2 or 4 bytes of a column 16 words apart, zero padded.");
  module.def("pack_codes", &pack_codes, py::arg("source"), py::arg("rows"), py::arg("laid"),
             "Codes of a byte each to panels of 4-bit words, zero padded.");
  module.def("checksum", &checksum, py::arg("memory"), "64 bits that tell whether memory is as it was.");
}

}  // namespace tw::bindings
