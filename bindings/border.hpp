// The border of an op: named sizes are unified, dtypes resolved to a precision, flags and configs checked,
// once. Data comes from generated tables; this file knows neither Python nor torch.
#pragma once

#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "_host/abi.h"

namespace tw::border {

// The caller asked for something the op does not take. Its message is one sentence.
class UsageError : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

// The kernel declined (TW_REFUSED) or failed (TW_FAILED).
class KernelError : public std::runtime_error {
 public:
  KernelError(int status, const std::string& message) : std::runtime_error(message), status(status) {}
  int status;
};

constexpr int64_t cdiv(int64_t x, int64_t y) { return (x + y - 1) / y; }

// One physical dimension: a plain named size (its index), or a formula over all of them.
struct Dim {
  int size;  // index of a plain size, -1 for a formula
  const char* text;
  int64_t (*value)(const int64_t* sizes);
  uint64_t uses;  // bit i: size i is in the formula
};

struct Layout {
  const char* name;
  bool accepted;
  std::span<const Dim> dims;
};

struct TensorSpec {
  const char* name;
  bool output;
  int flag;       // the flag that says whether it is present, -1 for always
  uint32_t when;  // bit i: present under value i of that flag
  int layout_flag;
  std::span<const Layout> layouts;
};

enum class FlagKind { layout, presence, choice, number };

struct FlagSpec {
  const char* name;
  FlagKind kind;
  int fallback;  // index of the default value
  std::span<const char* const> values;
};

struct PrecisionSpec {
  const char* name;
  int operands;                     // the first precision that reads the same types
  std::span<const int32_t> dtypes;  // of every tensor
  std::span<const int64_t> sizes;   // of every named size; -1 where the precision does not fix it
  std::span<const uint32_t> flags;  // bit i: value i of the flag is allowed
};

struct ConfigField {
  const char* name;
  int64_t fallback;
  std::span<const int64_t> values;
};

// A tuned config: the CPU level it was tuned at (empty: any), precision, value of each layout flag (-1: not a
// layout), bucket, fields. It is for first sizes above `over` up to bucket[0], and for the other sizes of the
// bucket.
struct Tuned {
  std::string_view level;
  int precision;
  std::span<const int> flags;
  int64_t over;
  std::span<const int64_t> bucket;
  std::span<const int64_t> config;
};

struct OpSpec {
  const char* name;
  tw_kernel_fn kernel;
  std::span<const TensorSpec> tensors;
  std::span<const FlagSpec> flags;
  std::span<const PrecisionSpec> precisions;
  std::span<const char* const> sizes;  // the case's sizes, then those that precisions fix
  int case_sizes;
  std::span<const ConfigField> config;
  std::span<const Tuned> tuned;
  std::span<const Tuned> tiling;  // what sizes alone suggest, at some sizes; after everything tuned
};

// What the caller gave for one tensor. Strides count elements.
struct View {
  bool present = false;
  int32_t dtype = -1;
  void* data = nullptr;
  std::vector<int64_t> shape, stride;
};

struct Request {
  std::vector<View> tensors;         // in the order of the spec; outputs may be absent until `resolve`
  std::vector<std::string> flags;    // text of layout and choice flags; ignored for others
  std::vector<double> numbers;       // of numeric flags, by the index of the flag; ignored for others
  std::vector<int64_t> given_sizes;  // -1 where not given
  int32_t out_dtype = -1;            // of the first output; -1: the first precision that fits
  std::string_view level;            // the CPU level in use; tuned configs of other levels are not for it
  bool has_config = false;
  std::vector<int64_t> config;
  int threads = 0;
};

// The launch that a request means.
struct Launch {
  const PrecisionSpec* precision = nullptr;
  std::vector<int64_t> flags;  // index of the value; of a numeric flag, the bits of a double
  std::vector<int64_t> sizes;
  std::vector<int64_t> config;
  std::vector<const Tuned*> candidates;  // where the caller gave no config: what `run` tries, the best first
  // Shape of a tensor in its layout.
  std::vector<int64_t> shape(const OpSpec& op, size_t tensor) const;
  bool present(const OpSpec& op, size_t tensor) const;
};

// Checks everything that can be checked without touching data; raises UsageError.
Launch resolve(const OpSpec& op, const Request& request);

// Tuned configs for a launch whose caller gave none, the best first: those of its precision by distance from
// their bucket, then those of the same operands. The same order as tilewright.tables.Table.candidates.
std::vector<const Tuned*> candidates(const OpSpec& op, const Launch& launch, std::string_view level);

// Why a launch would run with this candidate, or without any: a sentence.
std::string why(const OpSpec& op, const Launch& launch, const Tuned* candidate);

// Calls the kernel on checked tensors, outputs included; raises KernelError. A tuned config that the kernel
// refuses gives way to the next candidate, the last to the default. With TILEWRIGHT_EXPLAIN in the
// environment, which it was and why goes to standard error.
void run(const OpSpec& op, const Launch& launch, const Request& request);

const char* dtype_name(int32_t dtype);

}  // namespace tw::border
