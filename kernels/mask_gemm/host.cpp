// mask_gemm on the CPU: argument checks, the path of each row, and the choice of the ISA level.
#include "_host/cpu.hpp"
#include "_host/export.hpp"
#include "_host/levels.hpp"
#include "_rows/host_rows.hpp"
#include "gemm/host_read.hpp"
#include "mask_gemm/host_run.hpp"

TW_LEVELS(gemm, KernelTable)

namespace tw::mask_gemm {

namespace {

constexpr int64_t kCounts = 3;

gemm::Operand operand(const tw_tensor& t) {
  return {static_cast<const char*>(t.data), t.stride[0], t.stride[1]};
}

// Weights [n, k], or their panels.
bool read_weights(const Call& call, const char* name, int32_t dtype, bool panels, gemm::Problem* p) {
  if (panels) {
    const tw_tensor* b = call.require(name, 4);
    return b != nullptr && call.check_dtype(*b, dtype) && gemm::read_panel16(call, *b, 0, p);
  }
  const tw_tensor* b = rows::require_like(call, name, dtype, p->n, p->k);
  if (b == nullptr) return false;
  p->b = {static_cast<const char*>(b->data), b->stride[1], b->stride[0]};
  return true;
}

bool read_int8(const Call& call, bool panels, gemm::Problem* p) {
  p->kind = gemm::kI8;
  const tw_tensor* row_scale = rows::require_like(call, "row_scale", TW_FP32, -1, p->m);
  if (row_scale == nullptr || !read_weights(call, "b8", TW_INT8, panels, p)) return false;
  const tw_tensor* col_scale = rows::require_like(call, "col_scale", TW_FP32, -1, p->n);
  if (col_scale == nullptr) return false;
  p->row_scale = gemm::strided(*row_scale);
  p->col_scale = gemm::strided(*col_scale);
  return true;
}

bool read_bf16(const Call& call, bool panels, bool resident, gemm::Problem* p) {
  p->kind = gemm::kBF16;
  // How many rows are here follows from their mates, so their bits must not.
  p->batch_invariant = true;
  if (!resident) {
    for (const char* name : {"a", "b16"}) {
      if (call.tensor(name) == nullptr) continue;
      call.refuse("tensor \"%s\" is for resident bf16 weights", name);
      return false;
    }
    return true;
  }
  const tw_tensor* a = rows::require_like(call, "a", TW_BF16, p->m, p->k);
  if (a == nullptr) return false;
  p->a = operand(*a);
  return read_weights(call, "b16", TW_BF16, panels, p);
}

bool read_bias(const Call& call, gemm::Problem* p) {
  if (call.tensor("bias") == nullptr) return true;
  const tw_tensor* bias = rows::require_like(call, "bias", TW_FP32, -1, p->n);
  if (bias != nullptr) p->bias = gemm::strided(*bias);
  return bias != nullptr;
}

bool read_layer(const Call& call, int64_t layers, int64_t* layer) {
  const double value = call.number("layer", 0.0);
  *layer = value >= 0.0 && value < static_cast<double>(layers) ? static_cast<int64_t>(value) : -1;
  if (*layer >= 0 && static_cast<double>(*layer) == value) return true;
  call.refuse("layer is %g; accepted: 0 to %lld, the layers that \"selection\" has a bit for", value,
              static_cast<long long>(layers - 1));
  return false;
}

// What a row's path follows from.
struct Plan {
  bool resident = false, keep = false;  // keep: a selected row whose weights are not resident runs in int8
  int64_t m = 0;
  int64_t kept = 0;
  Rows rows;
};

bool choose(const Call& call, Plan* plan) {
  const tw_tensor* words = call.require("selection", 1);
  if (words == nullptr || !call.check_dtype(*words, TW_INT64)) return false;
  if (words->shape[0] <= kStepWords) {
    call.refuse("\"selection\" has %lld words; accepted: %lld or more",
                static_cast<long long>(words->shape[0]), static_cast<long long>(kStepWords + 1));
    return false;
  }
  const tw_tensor* owner = rows::require_like(call, "owner", TW_INT32, -1, plan->m);
  if (owner == nullptr) return false;
  const SelectionView<const int64_t> selection(static_cast<const int64_t*>(words->data), words->shape[0],
                                               words->stride[0]);
  int64_t layer;
  if (!read_layer(call, selection.layers(), &layer)) return false;
  const bool whole = selection.layer(layer);
  const auto* owners = static_cast<const int32_t*>(owner->data);
  for (int64_t row = 0; row < plan->m; ++row) {
    const int32_t slot = owners[row * owner->stride[0]];
    if (slot < kNoRequest || slot >= kRequests) {
      call.refuse("owner[%lld] is %d; accepted: 0 to %lld, or -1 for none", static_cast<long long>(row), slot,
                  static_cast<long long>(kRequests - 1));
      return false;
    }
    const bool selected = whole || selection.row(row, slot);
    if (selected && !plan->resident && !plan->keep) {
      call.refuse(
          "row %lld of layer %lld is selected for bf16, and its weights are not resident; accepted: rows "
          "that are not selected, or missing=keep_int8",
          static_cast<long long>(row), static_cast<long long>(layer));
      return false;
    }
    plan->kept += selected && !plan->resident;
    plan->rows.add(selected && plan->resident ? kInBf16 : kInInt8, row);
  }
  return true;
}

int mask_gemm(const Call& call) {
  Level level;
  if (!current_level(&level)) return call.refuse("%s", level_error());
  gemm::Problem whole{};
  Plan plan;
  bool panels;
  if (!gemm::read_config(call, &whole.config) ||
      !read_choice(call, "b_layout", false, "0 (NK) or 1 (panel16)", &panels) ||
      !read_choice(call, "resident", call.tensor("b16") != nullptr, "0 (no) or 1 (yes)", &plan.resident) ||
      !read_choice(call, "missing", false, "0 (error) or 1 (keep_int8)", &plan.keep)) {
    return TW_REFUSED;
  }
  const tw_tensor* a8 = call.require("a8", 2);
  const tw_tensor* c = a8 == nullptr ? nullptr : call.require("c", 2);
  if (c == nullptr || !call.check_dtype(*a8, TW_INT8)) return TW_REFUSED;
  whole.m = plan.m = a8->shape[0];
  whole.n = c->shape[1];
  whole.k = a8->shape[1];
  if (whole.m > kMostRows) {
    return call.refuse("dimension 0 of \"a8\" is %lld; accepted: up to %lld, what 64 groups of tokens hold",
                       static_cast<long long>(whole.m), static_cast<long long>(kMostRows));
  }
  const tw_tensor* counts = rows::require_output(call, "counts", TW_INT32, -1, kCounts);
  if (counts == nullptr || rows::require_output(call, "c", TW_BF16, whole.m, whole.n) == nullptr ||
      !read_bias(call, &whole)) {
    return TW_REFUSED;
  }
  whole.a = operand(*a8);
  whole.c = view2(*c);
  whole.out = gemm::kOutBF16;
  whole.threads = resolve_threads(call.threads());
  whole.kernels = &gemm::kernels_of(level);
  Problem p{{whole, whole}};
  if (!read_int8(call, panels, &p.of[kInInt8]) || !read_bf16(call, panels, plan.resident, &p.of[kInBf16]) ||
      !choose(call, &plan)) {
    return TW_REFUSED;
  }
  if (!run(p, plan.rows)) {
    return call.fail("no memory for the scratch of a %lld x %lld x %lld mask_gemm",
                     static_cast<long long>(whole.m), static_cast<long long>(whole.n),
                     static_cast<long long>(whole.k));
  }
  const int64_t found[kCounts] = {plan.rows.count(kInBf16), plan.rows.count(kInInt8), plan.kept};
  for (int64_t i = 0; i < kCounts; ++i) {
    static_cast<int32_t*>(counts->data)[i * counts->stride[0]] = static_cast<int32_t>(found[i]);
  }
  return TW_OK;
}

}  // namespace
}  // namespace tw::mask_gemm

TW_EXPORT int tw_host_mask_gemm(const tw_call* call) { return tw::mask_gemm::mask_gemm(tw::Call(*call)); }
