#include "launcher/fit.hpp"

#include <bit>
#include <cmath>
#include <cstring>

namespace tilewright::launch {
namespace {

const char* DtypeName(int32_t dtype) {
  static constexpr const char* kNames[] = {"fp32",  "bf16",  "fp16", "int8", "int32",
                                           "int64", "uint8", "fp64", "int16"};
  return dtype >= 0 && dtype < 9 ? kNames[dtype] : "an unknown dtype";
}

std::string Quoted(const char* name) { return "'" + std::string(name) + "'"; }

bool Present(const tw_tensor& tensor) { return tensor.ndim >= 0; }

bool TensorsFit(const Entry& entry, const tw_call& call, std::string* why) {
  if (call.tensor_count != entry.tensor_count) {
    if (why) {
      *why = "the call has " + std::to_string(call.tensor_count) + " tensors, it takes " +
             std::to_string(entry.tensor_count);
    }
    return false;
  }
  for (int32_t i = 0; i < entry.tensor_count; ++i) {
    const TensorDecl& decl = entry.tensors[i];
    const tw_tensor& tensor = call.tensors[i];
    if (!Present(tensor)) {
      if (decl.presence != Presence::kRequired) continue;
      if (why) *why = Quoted(decl.name) + " is absent and it needs one";
      return false;
    }
    if (decl.presence == Presence::kAbsent) {
      if (why) *why = Quoted(decl.name) + " is given and it takes none";
      return false;
    }
    if (tensor.dtype != decl.dtype) {
      if (why) {
        *why = Quoted(decl.name) + " is " + DtypeName(tensor.dtype) + ", it takes " + DtypeName(decl.dtype);
      }
      return false;
    }
    if (tensor.ndim != decl.ndim) {
      if (why) {
        *why = Quoted(decl.name) + " has " + std::to_string(tensor.ndim) + " dims, it takes " +
               std::to_string(decl.ndim);
      }
      return false;
    }
  }
  return true;
}

bool ShapeFits(const Entry& entry, const tw_call& call, Bound& bound, std::string* why) {
  bound.workspace = 0;
  for (int32_t i = 0; i < entry.dim_count; ++i) bound.dims[i] = -1;
  for (int32_t i = 0; i < entry.tensor_count; ++i) {
    const TensorDecl& decl = entry.tensors[i];
    if (!Present(call.tensors[i])) continue;
    for (int32_t axis = 0; axis < decl.ndim; ++axis) {
      const Extent& extent = decl.extents[axis];
      const int64_t have = call.tensors[i].shape[axis];
      int64_t want = extent.fixed;
      if (extent.dim >= 0) {
        if (bound.dims[extent.dim] < 0) bound.dims[extent.dim] = have;
        want = bound.dims[extent.dim];
      }
      if (have < 0 || (want >= 0 && want != have)) {
        if (why) {
          *why = Quoted(decl.name) + " has " + std::to_string(have) + " along axis " + std::to_string(axis) +
                 (extent.dim >= 0 ? ", " + std::string(entry.dims[extent.dim]) + " is " : ", it takes ") +
                 std::to_string(want);
        }
        return false;
      }
    }
  }
  for (int32_t i = 0; i < entry.dim_count; ++i) {
    if (bound.dims[i] >= 0) continue;
    if (why) *why = "no tensor of the call gives " + std::string(entry.dims[i]);
    return false;
  }
  return true;
}

bool Dense(const tw_tensor& tensor) {
  int64_t step = 1;
  for (int32_t axis = tensor.ndim - 1; axis >= 0; --axis) {
    if (tensor.shape[axis] == 0) return true;
    if (tensor.shape[axis] > 1 && tensor.stride[axis] != step) return false;
    step *= tensor.shape[axis];
  }
  return true;
}

bool StridesFit(const Entry& entry, const tw_call& call, std::string* why) {
  for (int32_t i = 0; i < entry.tensor_count; ++i) {
    const TensorDecl& decl = entry.tensors[i];
    const tw_tensor& tensor = call.tensors[i];
    if (!Present(tensor)) continue;
    if (decl.dense && !Dense(tensor)) {
      if (why) *why = Quoted(decl.name) + " does not lie row by row without gaps, as it takes it";
      return false;
    }
    if (decl.unit_axis < 0) continue;
    // A stride along an axis of one element is never used.
    if (tensor.shape[decl.unit_axis] > 1 && tensor.stride[decl.unit_axis] != 1) {
      if (why) {
        *why = Quoted(decl.name) + " has stride " + std::to_string(tensor.stride[decl.unit_axis]) +
               " along axis " + std::to_string(decl.unit_axis) + ", it takes 1";
      }
      return false;
    }
  }
  return true;
}

bool ArgsFit(const Kernel& kernel, const tw_call& call, const Bound& bound, std::string* why) {
  for (int32_t i = 0; i < kernel.arg_count; ++i) {
    const Arg& arg = kernel.args[i];
    if (arg.kind == ArgKind::kWorkspace) continue;  // allocated for this very launch
    const int64_t value = ArgValue(arg, call, bound);
    if (arg.ctype == CType::kI32 && (value > INT32_MAX || value < INT32_MIN)) {
      if (why)
        *why =
            Quoted(arg.name) + " needs the value " + std::to_string(value) + ", which does not fit 32 bits";
      return false;
    }
    // A stride along an axis of at most one element only ever multiplies 0.
    const bool unused = arg.kind == ArgKind::kStride && Present(call.tensors[arg.index]) &&
                        call.tensors[arg.index].shape[arg.axis] <= 1;
    if (arg.divisible > 1 && !unused &&
        static_cast<uint64_t>(value) % static_cast<uint64_t>(arg.divisible) != 0) {
      if (why) {
        *why =
            (arg.kind == ArgKind::kTensor   ? "the address of " + Quoted(arg.name)
             : arg.kind == ArgKind::kStride ? "stride " + std::to_string(arg.axis) + " of " + Quoted(arg.name)
                                            : std::string(arg.name)) +
            " must be divisible by " + std::to_string(arg.divisible) +
            (arg.kind == ArgKind::kTensor ? std::string() : " and is " + std::to_string(value));
      }
      return false;
    }
  }
  return true;
}

// A numeric flag as a kernel takes it: a float's bits, or the next integer at or above it.
int64_t NumberValue(CType ctype, double number) {
  if (ctype == CType::kFp32) return std::bit_cast<uint32_t>(static_cast<float>(number));
  constexpr double kMost = 9.0e18;
  return static_cast<int64_t>(std::ceil(std::fmin(std::fmax(number, -kMost), kMost)));
}

}  // namespace

int64_t AttrValue(const tw_call& call, const char* name, int64_t fallback) {
  for (int32_t i = 0; i < call.attr_count; ++i) {
    if (std::strcmp(call.attrs[i].name, name) == 0) return call.attrs[i].value;
  }
  return fallback;
}

int64_t ArgValue(const Arg& arg, const tw_call& call, const Bound& bound) {
  switch (arg.kind) {
    case ArgKind::kTensor:
      return Present(call.tensors[arg.index]) ? reinterpret_cast<intptr_t>(call.tensors[arg.index].data) : 0;
    case ArgKind::kDim:
      return bound.dims[arg.index];
    case ArgKind::kStride:
      return Present(call.tensors[arg.index]) ? call.tensors[arg.index].stride[arg.axis] : 0;
    case ArgKind::kAttr:
      return AttrValue(call, arg.name, 0);
    case ArgKind::kNumber:
      return NumberValue(arg.ctype, std::bit_cast<double>(AttrValue(call, arg.name, 0)));
    case ArgKind::kConst:
      return arg.value;
    case ArgKind::kWorkspace:
      return bound.workspace;
  }
  return 0;
}

Stage Fit(const Entry& entry, const tw_call& call, Bound& bound, std::string* why) {
  if (!TensorsFit(entry, call, why)) return Stage::kTensors;
  for (int32_t i = 0; i < entry.flag_count; ++i) {
    const Flag& flag = entry.flags[i];
    const int64_t have = AttrValue(call, flag.name, 0);
    if (have == flag.value) continue;
    if (why) {
      *why = "flag " + Quoted(flag.name) + " is " + std::to_string(have) + ", it takes " +
             std::to_string(flag.value);
    }
    return Stage::kFlags;
  }
  if (!ShapeFits(entry, call, bound, why)) return Stage::kShape;
  for (int32_t i = 0; i < entry.when_count; ++i) {
    const Range& range = entry.when[i];
    const int64_t value = bound.dims[range.dim];
    if (value >= range.low && value <= range.high) continue;
    if (why)
      *why = std::string(entry.dims[range.dim]) + " = " + std::to_string(value) + " is outside its range";
    return Stage::kRange;
  }
  if (!StridesFit(entry, call, why)) return Stage::kStrides;
  for (int32_t i = 0; i < entry.kernel_count; ++i) {
    if (!ArgsFit(entry.kernels[i], call, bound, why)) return Stage::kSpecialisation;
  }
  return Stage::kFits;
}

}  // namespace tilewright::launch
