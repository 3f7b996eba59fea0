#include "border.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace tw::border {
namespace {

std::string join(const std::vector<std::string>& parts, const char* separator = ", ") {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : separator) + part;
  return text.empty() ? "none" : text;
}

std::string text_of(const std::vector<int64_t>& shape) {
  std::vector<std::string> parts;
  for (const int64_t size : shape) parts.push_back(std::to_string(size));
  return shape.empty() ? "[]" : "[" + join(parts) + "]";
}

std::string text_of(std::span<const Dim> dims) {
  std::vector<std::string> parts;
  for (const Dim& dim : dims) parts.emplace_back(dim.text);
  return dims.empty() ? "[]" : "[" + join(parts) + "]";
}

[[noreturn]] void wrong(const OpSpec& op, const std::string& what) {
  throw UsageError(std::string(op.name) + ": " + what);
}

std::vector<int64_t> defaults(const OpSpec& op) {
  std::vector<int64_t> config;
  for (const ConfigField& field : op.config) config.push_back(field.fallback);
  return config;
}

std::vector<int64_t> fields(const Tuned& row) { return {row.config.begin(), row.config.end()}; }

class Resolver {
 public:
  Resolver(const OpSpec& op, const Request& request) : op_(op), request_(request) {}

  Launch resolve() {
    require_inputs();
    flags();
    precision();
    sizes();
    config();
    return std::move(launch_);
  }

 private:
  void require_inputs() const {
    for (size_t i = 0; i < op_.tensors.size(); ++i) {
      const TensorSpec& tensor = op_.tensors[i];
      if (!tensor.output && tensor.flag < 0 && !request_.tensors[i].present) {
        wrong(op_, std::string(tensor.name) + " is missing");
      }
    }
  }

  void flags() {
    launch_.flags.resize(op_.flags.size(), 0);
    for (size_t i = 0; i < op_.flags.size(); ++i) {
      switch (op_.flags[i].kind) {
        case FlagKind::presence:
          launch_.flags[i] = presence(static_cast<int>(i));
          break;
        case FlagKind::number:
          launch_.flags[i] = number(i);
          break;
        default:
          launch_.flags[i] = named(i);
      }
    }
  }

  int64_t number(size_t index) const {
    const double value = request_.numbers[index];
    if (!std::isfinite(value)) {
      wrong(op_, std::string(op_.flags[index].name) + " is " + std::to_string(value) +
                     "; accepted: a finite number");
    }
    return std::bit_cast<int64_t>(value);
  }

  // The value of a flag from its text; of a layout flag, only layouts that compiled kernels take.
  int named(size_t index) const {
    const FlagSpec& flag = op_.flags[index];
    std::vector<std::string> accepted;
    int found = -1;
    for (size_t v = 0; v < flag.values.size(); ++v) {
      if (!layout_accepted(static_cast<int>(index), v)) continue;
      accepted.emplace_back(flag.values[v]);
      if (request_.flags[index] == flag.values[v]) found = static_cast<int>(v);
    }
    if (found < 0) {
      wrong(op_, "unknown " + std::string(flag.name) + " '" + request_.flags[index] +
                     "'; accepted: " + join(accepted));
    }
    return found;
  }

  bool layout_accepted(int flag, size_t value) const {
    for (const TensorSpec& tensor : op_.tensors) {
      if (tensor.layout_flag == flag) return tensor.layouts[value].accepted;
    }
    return true;
  }

  // The value under which exactly the given optional inputs are present.
  int presence(int index) const {
    const FlagSpec& flag = op_.flags[static_cast<size_t>(index)];
    std::vector<std::string> given, names;
    for (size_t i = 0; i < op_.tensors.size(); ++i) {
      if (op_.tensors[i].flag != index || op_.tensors[i].output) continue;
      names.emplace_back(op_.tensors[i].name);
      if (request_.tensors[i].present) given.emplace_back(op_.tensors[i].name);
    }
    std::vector<std::string> accepted;
    for (size_t v = 0; v < flag.values.size(); ++v) {
      std::vector<std::string> wanted;
      for (const TensorSpec& tensor : op_.tensors) {
        if (tensor.flag == index && !tensor.output && (tensor.when >> v & 1u))
          wanted.emplace_back(tensor.name);
      }
      if (wanted == given) return static_cast<int>(v);
      accepted.push_back(join(wanted, " and "));
    }
    wrong(op_, "of " + join(names, " and ") + " only " + join(given, " and ") +
                   " given; accepted: " + join(accepted, " / "));
  }

  bool fits(const PrecisionSpec& precision) const {
    for (size_t i = 0; i < op_.tensors.size(); ++i) {
      if (request_.tensors[i].present && request_.tensors[i].dtype != precision.dtypes[i]) return false;
    }
    for (size_t i = 0; i < op_.flags.size(); ++i) {
      if (op_.flags[i].kind == FlagKind::number) continue;
      if (!(precision.flags[i] >> launch_.flags[i] & 1u)) return false;
    }
    return request_.out_dtype < 0 || request_.out_dtype == precision.dtypes[first_output()];
  }

  size_t first_output() const {
    size_t i = 0;
    while (i < op_.tensors.size() && !op_.tensors[i].output) ++i;
    return i;
  }

  // "a int8, b int8, [bias fp32], [row_scale fp32], col_scale fp32 -> fp32": in brackets what may be left
  // out.
  std::string describe(const PrecisionSpec& precision) const {
    std::vector<std::string> parts, flags;
    for (size_t i = 0; i < op_.tensors.size(); ++i) {
      const TensorSpec& tensor = op_.tensors[i];
      if (tensor.output) continue;
      const uint32_t allowed = tensor.flag < 0 ? 1u : precision.flags[static_cast<size_t>(tensor.flag)];
      const uint32_t present = tensor.flag < 0 ? 1u : allowed & tensor.when;
      const std::string part = std::string(tensor.name) + " " + dtype_name(precision.dtypes[i]);
      if (present != 0) parts.push_back(present == allowed ? part : "[" + part + "]");
    }
    for (size_t i = 0; i < op_.flags.size(); ++i) {
      if (op_.flags[i].kind == FlagKind::presence || op_.flags[i].kind == FlagKind::number) continue;
      std::vector<std::string> values;
      for (size_t v = 0; v < op_.flags[i].values.size(); ++v) {
        if (precision.flags[i] >> v & 1u) values.emplace_back(op_.flags[i].values[v]);
      }
      if (values.size() < op_.flags[i].values.size()) {
        flags.push_back(std::string(op_.flags[i].name) + "=" + join(values, "|"));
      }
    }
    const size_t out = first_output();
    const std::string result =
        out < op_.tensors.size() ? " -> " + std::string(dtype_name(precision.dtypes[out])) : "";
    return join(parts) + (flags.empty() ? "" : " (" + join(flags) + ")") + result;
  }

  void precision() {
    for (const PrecisionSpec& candidate : op_.precisions) {
      if (fits(candidate)) {
        launch_.precision = &candidate;
        return;
      }
    }
    std::vector<std::string> given, accepted;
    for (size_t i = 0; i < op_.tensors.size(); ++i) {
      if (request_.tensors[i].present) {
        given.push_back(std::string(op_.tensors[i].name) + " " + dtype_name(request_.tensors[i].dtype));
      }
    }
    const std::string out =
        request_.out_dtype < 0 ? "" : std::string(" -> ") + dtype_name(request_.out_dtype);
    for (const PrecisionSpec& one : op_.precisions) accepted.push_back(describe(one));
    wrong(op_, "no precision for " + join(given) + out + "; accepted: " + join(accepted, "; "));
  }

  std::span<const Dim> dims(size_t tensor) const {
    const TensorSpec& spec = op_.tensors[tensor];
    const int64_t layout = spec.layout_flag < 0 ? 0 : launch_.flags[static_cast<size_t>(spec.layout_flag)];
    return spec.layouts[static_cast<size_t>(layout)].dims;
  }

  // Plain sizes are bound by the first tensor that has them; then every dimension must agree.
  void sizes() {
    launch_.sizes.assign(launch_.precision->sizes.begin(), launch_.precision->sizes.end());
    std::vector<std::string> source(launch_.sizes.size());
    for (size_t i = 0; i < request_.given_sizes.size(); ++i) {
      if (request_.given_sizes[i] < 0) continue;
      launch_.sizes[i] = request_.given_sizes[i];
      source[i] = "the argument " + std::string(op_.sizes[i]);
    }
    for (size_t t = 0; t < op_.tensors.size(); ++t) {
      if (request_.tensors[t].present) bind(t, source);
    }
    for (size_t i = 0; i < static_cast<size_t>(op_.case_sizes); ++i) {
      if (launch_.sizes[i] >= 0) continue;
      if (used(i)) {
        wrong(op_, "the tensors given do not tell " + std::string(op_.sizes[i]) + "; pass " + op_.sizes[i]);
      }
      launch_.sizes[i] = 0;
    }
    for (size_t t = 0; t < op_.tensors.size(); ++t) {
      if (request_.tensors[t].present) verify(t, source);
    }
  }

  // Whether a tensor of this launch has the size in its shape.
  bool used(size_t size) const {
    for (size_t t = 0; t < op_.tensors.size(); ++t) {
      if (op_.tensors[t].output ? !launch_.present(op_, t) : !request_.tensors[t].present) continue;
      for (const Dim& dim : dims(t)) {
        if (dim.uses >> size & 1u) return true;
      }
    }
    return false;
  }

  void bind(size_t tensor, std::vector<std::string>& source) {
    const std::vector<int64_t>& shape = request_.tensors[tensor].shape;
    const std::span<const Dim> wanted = dims(tensor);
    if (shape.size() != wanted.size()) {
      wrong(op_, std::string(op_.tensors[tensor].name) + " has shape " + text_of(shape) +
                     "; accepted: " + text_of(wanted));
    }
    for (size_t d = 0; d < wanted.size(); ++d) {
      const int size = wanted[d].size;
      if (size < 0 || launch_.sizes[static_cast<size_t>(size)] >= 0) continue;
      launch_.sizes[static_cast<size_t>(size)] = shape[d];
      source[static_cast<size_t>(size)] = op_.tensors[tensor].name;
    }
  }

  void verify(size_t tensor, const std::vector<std::string>& source) const {
    const std::vector<int64_t>& shape = request_.tensors[tensor].shape;
    const std::span<const Dim> wanted = dims(tensor);
    for (size_t d = 0; d < wanted.size(); ++d) {
      const int64_t expected = wanted[d].value(launch_.sizes.data());
      if (shape[d] == expected) continue;
      const int size = wanted[d].size;
      const std::string from = size >= 0 && !source[static_cast<size_t>(size)].empty()
                                   ? " from " + source[static_cast<size_t>(size)]
                                   : "";
      wrong(op_, std::string(op_.tensors[tensor].name) + " has shape " + text_of(shape) + "; accepted: " +
                     text_of(wanted) + " with " + wanted[d].text + " = " + std::to_string(expected) + from);
    }
  }

  void config() {
    if (!request_.has_config) {
      launch_.candidates = candidates(op_, launch_, request_.level);
      launch_.config = launch_.candidates.empty() ? defaults(op_) : fields(*launch_.candidates.front());
      return;
    }
    std::vector<std::string> names;
    for (const ConfigField& field : op_.config) names.emplace_back(field.name);
    if (request_.config.size() != op_.config.size()) {
      wrong(op_, "config has " + std::to_string(request_.config.size()) +
                     " values; accepted: " + std::to_string(op_.config.size()) + " (" + join(names) + ")");
    }
    for (size_t i = 0; i < op_.config.size(); ++i) {
      const auto& values = op_.config[i].values;
      if (std::find(values.begin(), values.end(), request_.config[i]) != values.end()) continue;
      wrong(op_, "config " + names[i] + "=" + std::to_string(request_.config[i]) +
                     "; accepted: " + text_of(std::vector<int64_t>(values.begin(), values.end())));
    }
    launch_.config = request_.config;
  }

  const OpSpec& op_;
  const Request& request_;
  Launch launch_;
};

struct Attempt {
  int status;
  std::string reason;
};

Attempt call_kernel(const OpSpec& op, const Launch& launch, const Request& request,
                    const std::vector<int64_t>& config) {
  std::vector<tw_tensor> tensors(op.tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const View& view = request.tensors[i];
    tensors[i].name = op.tensors[i].name;
    tensors[i].dtype = launch.precision->dtypes[i];
    tensors[i].ndim = -1;
    if (!view.present) continue;
    tensors[i].data = view.data;
    tensors[i].ndim = static_cast<int32_t>(view.shape.size());
    std::copy(view.shape.begin(), view.shape.end(), tensors[i].shape);
    std::copy(view.stride.begin(), view.stride.end(), tensors[i].stride);
  }
  std::vector<tw_attr> attrs;
  for (size_t i = 0; i < op.flags.size(); ++i) attrs.push_back({op.flags[i].name, launch.flags[i]});
  for (size_t i = 0; i < op.config.size(); ++i) attrs.push_back({op.config[i].name, config[i]});
  char error[512] = "";
  const tw_call call{tensors.data(),
                     attrs.data(),
                     error,
                     sizeof error,
                     static_cast<int32_t>(tensors.size()),
                     static_cast<int32_t>(attrs.size()),
                     request.threads};
  const int status = op.kernel(&call);
  return {status, error[0] != '\0' ? error : "the kernel returned status " + std::to_string(status)};
}

}  // namespace

const char* dtype_name(int32_t dtype) {
  constexpr const char* names[] = {"fp32",  "bf16",  "fp16", "int8", "int32",
                                   "int64", "uint8", "fp64", "int16"};
  return dtype >= 0 && dtype < 9 ? names[dtype] : "of a dtype unknown here";
}

std::vector<int64_t> Launch::shape(const OpSpec& op, size_t tensor) const {
  const TensorSpec& spec = op.tensors[tensor];
  const int64_t layout = spec.layout_flag < 0 ? 0 : flags[static_cast<size_t>(spec.layout_flag)];
  std::vector<int64_t> shape;
  for (const Dim& dim : spec.layouts[static_cast<size_t>(layout)].dims)
    shape.push_back(dim.value(sizes.data()));
  return shape;
}

bool Launch::present(const OpSpec& op, size_t tensor) const {
  const TensorSpec& spec = op.tensors[tensor];
  return spec.flag < 0 || (spec.when >> flags[static_cast<size_t>(spec.flag)] & 1u) != 0;
}

Launch resolve(const OpSpec& op, const Request& request) { return Resolver(op, request).resolve(); }

void run(const OpSpec& op, const Launch& launch, const Request& request) {
  const size_t count = launch.candidates.size();
  const Attempt first = call_kernel(op, launch, request, launch.config);
  Attempt last = first;
  size_t used = 0;
  while (last.status == TW_REFUSED && used < count)
    last = call_kernel(op, launch, request, ++used < count ? fields(*launch.candidates[used]) : defaults(op));
  if (!request.has_config && std::getenv("TILEWRIGHT_EXPLAIN") != nullptr) {
    const std::string passed =
        used > 0 ? "; refused before: " + std::to_string(used) + ", " + first.reason : "";
    std::fprintf(stderr, "%s %s %s: %s%s\n", op.name, text_of(launch.sizes).c_str(), launch.precision->name,
                 why(op, launch, used < count ? launch.candidates[used] : nullptr).c_str(), passed.c_str());
  }
  if (last.status == TW_OK) return;
  const Attempt& told = last.status == TW_REFUSED ? first : last;
  throw KernelError(told.status, std::string(op.name) + ": " + told.reason);
}

}  // namespace tw::border
