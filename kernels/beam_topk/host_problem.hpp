// The arguments of a call of beam_topk, checked before memory is touched.
#pragma once

#include <cmath>

#include "_host/call.hpp"
#include "beam_topk/host_kernels.hpp"

namespace tw::beam_topk {

struct Problem {
  const tw_tensor *logits, *row_max;             // row_max: codes only, else null
  const tw_tensor *scores, *finished;            // both null unless it is a beam step
  const tw_tensor *first, *second, *next_score;  // ids and probs, or next_beam and next_id
  int64_t rows, vocabulary, results, groups, beams, eos;
  Kind kind;
  double unit;  // what one of a logit is worth after division by the temperature
  bool whole_row, coarse;
};

inline bool read_kind(const Call& call, Problem* p) {
  switch (p->logits->dtype) {
    case TW_FP32:
      p->kind = kF32;
      return true;
    case TW_BF16:
      p->kind = kBF16;
      return true;
    case TW_FP16:
      p->kind = kF16;
      return true;
    case TW_INT8:
      p->kind = kI8;
      return true;
    default:
      call.refuse("tensor \"logits\" is %s; accepted: fp32, bf16, fp16, int8", dtype_name(p->logits->dtype));
      return false;
  }
}

inline bool read_row_max(const Call& call, Problem* p) {
  const bool given = call.tensor("row_max") != nullptr;
  if (given != (p->kind == kI8)) {
    call.refuse(given ? "\"row_max\" goes with int8 logits; \"logits\" is %s"
                      : "%s logits need \"row_max\", the logit that code 127 stands for",
                dtype_name(p->logits->dtype));
    return false;
  }
  if (!given) return true;
  p->row_max = call.require("row_max", 1);
  return p->row_max != nullptr && call.check_dtype(*p->row_max, TW_FP32) &&
         call.check_dim(*p->row_max, 0, p->rows);
}

inline bool read_output(const Call& call, const char* name, int32_t dtype, int64_t rows, int64_t cols,
                        const tw_tensor** found) {
  const tw_tensor* t = call.require(name, 2);
  if (t == nullptr || !call.check_dtype(*t, dtype) || !call.check_dim(*t, 0, rows)) return false;
  if (cols >= 0 && !call.check_dim(*t, 1, cols)) return false;
  if (!injective(view2(*t))) {
    call.refuse("strides %lld,%lld make elements of \"%s\" overlap", static_cast<long long>(t->stride[0]),
                static_cast<long long>(t->stride[1]), name);
    return false;
  }
  *found = t;
  return true;
}

inline bool read_eos(const Call& call, Problem* p) {
  const double eos = call.number("eos", 0.0);
  if (p->rows != 0 && !(eos >= 0 && eos < static_cast<double>(p->vocabulary) && eos == std::floor(eos))) {
    call.refuse("eos is %g; accepted: a token, 0 to %lld", eos, static_cast<long long>(p->vocabulary - 1));
    return false;
  }
  p->eos = p->rows != 0 ? static_cast<int64_t>(eos) : 0;
  return true;
}

inline bool read_step(const Call& call, Problem* p) {
  p->scores = call.require("scores", 2);
  if (p->scores == nullptr) return false;
  p->finished = call.require("finished", 2);
  if (p->finished == nullptr) return false;
  p->groups = p->scores->shape[0];
  p->beams = p->scores->shape[1];
  if (!call.check_dtype(*p->scores, TW_FP32) || !call.check_dtype(*p->finished, TW_INT8) ||
      !call.check_dim(*p->finished, 0, p->groups) || !call.check_dim(*p->finished, 1, p->beams)) {
    return false;
  }
  if (p->groups * p->beams != p->rows) {
    call.refuse("\"scores\" are of %lld groups of %lld beams, and \"logits\" of %lld",
                static_cast<long long>(p->groups), static_cast<long long>(p->beams),
                static_cast<long long>(p->rows));
    return false;
  }
  if (!p->whole_row) {
    call.refuse("a step adds log-probabilities over the whole row; accepted: softmax=row");
    return false;
  }
  if (!read_eos(call, p) || !read_output(call, "next_beam", TW_INT32, p->groups, -1, &p->first)) {
    return false;
  }
  p->results = p->first->shape[1];
  return read_output(call, "next_id", TW_INT32, p->groups, p->results, &p->second) &&
         read_output(call, "next_score", TW_FP32, p->groups, p->results, &p->next_score);
}

inline bool read_ids(const Call& call, Problem* p) {
  if (!read_output(call, "ids", TW_INT32, p->rows, -1, &p->first)) return false;
  p->results = p->first->shape[1];
  return read_output(call, "probs", TW_FP32, p->rows, p->results, &p->second);
}

inline bool read(const Call& call, Problem* p) {
  p->logits = call.require("logits", 2);
  if (p->logits == nullptr || !read_kind(call, p)) return false;
  p->rows = p->logits->shape[0];
  p->vocabulary = p->logits->shape[1];
  const double temperature = call.number("temperature", 1.0);
  if (!(temperature >= 1e-4 && temperature <= 1e4)) {
    call.refuse("temperature is %g; accepted: 0.0001 to 10000", temperature);
    return false;
  }
  if (p->vocabulary > INT32_MAX) {
    call.refuse("a row has %lld logits; accepted: up to 2147483647, as ids are int32",
                static_cast<long long>(p->vocabulary));
    return false;
  }
  p->unit = (p->kind == kI8 ? 16.0 / 255.0 : 1.0) / temperature;
  p->whole_row = call.attr("softmax", 1) == 1;
  p->coarse = p->kind != kI8 && call.attr("int8", 0) == 1;
  if (!read_row_max(call, p)) return false;
  const bool step = call.tensor("scores") != nullptr || call.tensor("finished") != nullptr;
  if (!(step ? read_step(call, p) : read_ids(call, p))) return false;
  const int64_t choices = step ? p->beams * p->vocabulary : p->vocabulary;
  const int64_t most = choices < kMostResults ? choices : kMostResults;
  if (p->rows != 0 && p->results > most) {
    call.refuse("%lld results are asked for; accepted: up to %lld", static_cast<long long>(p->results),
                static_cast<long long>(most));
    return false;
  }
  return true;
}

}  // namespace tw::beam_topk
