#include "timing/costs.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

namespace tilewright::twin::timing {

namespace {

#define ADK "asc-devkit "
// Letters and numbers such as G9 are rows of data/published_910b.csv. Values marked "fit" are found again by
// ascendc/bench/fit.py; "derived" ones follow from the rows named by arithmetic.
constexpr ConstInfo kTable[] = {
    {"scalar_call", 3.0, "cycles",
     "derived: scalar time of add_high_performance case 1 (V1), 26 cycles for 9 calls"},
    {"scalar_access", 11.3, "cycles",
     "derived: scalar loop of add_high_performance case 0 (V0), 34 cycles for 3"},
    {"scalar_gm", 20.0, "cycles", "assumed: a read through the data cache; no figure is published"},
    {"queue_depth", 32, "instructions", ADK "matmul_basic_api_high_performance, MTE1; taken for every pipe"},
    {"flag_latency", 6.0, "cycles", "derived: gaps between pipes of serial gemms (G0, G1)"},
    {"mmad_head", 9.0, "cycles", "derived: time on pipe M of back-to-back Mmads (G8, G9)"},
    {"mmad_latency", 54.0, "cycles",
     "derived: time on pipe M of serial Mmads (G0, G1), head of 61..63 cycles"},
    {"mte1_l0a", 256.0, "B/cycle", ADK "tests/perf/load_data_perf"},
    {"mte1_l0b", 128.0, "B/cycle", ADK "tests/perf/load_data_perf"},
    {"mte1_table", 32.0, "B/cycle", ADK "tests/perf/load_data_perf"},
    {"mte1_issue", 4.0, "cycles", "assumed: between LoadData back to back; no figure is published"},
    {"mte1_latency", 28.0, "cycles", ADK "tests/perf/load_data_perf"},
    {"mte1_latency_3d", 50.0, "cycles", ADK "tests/perf/load_data_perf"},
    {"mte1_contended", 1.14, "factor", "derived: pipe MTE1 of G8 and G9 against G1 and G3"},
    {"mte2_issue", 20.6, "cycles", "derived: copies of 1x128 B (D1)"},
    {"mte2_row", 1.8, "cycles", "fit: G4, G5, G9, G13, L1, L4"},
    {"mte2_l1_hit", 122.0, "B/cycle", "fit: G4, G5, G9, G13; the public Ascend910B3.ini says 110"},
    {"mte2_ub_hit", 64.0, "B/cycle", "pto-isa cost model: GM to UB 101 GiB/s of one core = 58 B"},
    {"mte2_miss", 32.0, "B/cycle", "public Ascend910B3.ini: ddr_rate of one core"},
    {"mte2_latency", 190.0, "cycles", "derived: serial 8 KB copies of one core (V1)"},
    {"line_bytes", 512.0, "B", ADK "data_copy README: rows should start at multiples of 512 B"},
    {"bypass_burst", 64.0, "B",
     "derived: " ADK "data_copy, 48 cores in staggered order, 0.98 TB/s in bursts of 128 B"},
    {"mte3_rate", 27.5, "B/cycle", "derived: serial 8 KB and 32 KB copies (V1, V2, V3)"},
    {"mte3_row", 1.8, "cycles", "as mte2_row"},
    {"mte3_latency", 10.0, "cycles", "derived: serial 8 KB copies (V1)"},
    {"fix_gm", 68.0, "B/cycle", "derived: pipe FIX of G4, G5 and G6"},
    {"fix_l1", 64.0, "elements/cycle", ADK "tests/perf/fixpipe_perf"},
    {"fix_row", 0.0, "cycles", "no figure is published"},
    {"fix_latency", 20.0, "cycles", ADK "tests/perf/fixpipe_perf"},
    {"vector_bytes", 256.0, "B/cycle", ADK "docs/zh/api, appendix on theoretical vector performance"},
    {"vector_fixed", 23.0, "cycles", "derived: additions of 32 to 128 repeats (V1, V3, V6, B1)"},
    {"vector_read_write", 0.8, "beats", "derived: " ADK "bank_conflict_ub, scenario 5"},
    {"vector_slow", 32.0, "elements/cycle", ADK "docs/zh/api, appendix on theoretical vector performance"},
    {"sort_rate", 2.0, "elements/cycle", ADK "docs/zh/api, appendix on theoretical vector performance"},
    {"gather_rate", 5.0, "elements/cycle", ADK "docs/zh/api, appendix on theoretical vector performance"},
    {"hot_lines", 342.0, "B/cycle, all cores", "derived: copies of the same addresses (D7, L6)"},
    {"l2_bytes", 201326592.0, "B", "public Ascend910B3.ini: l2_size"},
    {"l2_rate", 5.2, "TB/s", ADK "data_copy and catlass documentation, peak of L2 reads"},
    {"hbm_rate", 1.52, "TB/s", "fit: D3, D5; " ADK "data_copy says 1.8 at best"},
    {"hbm_write_back", 1.8, "factor", "fit: V2, V3, V6"},
    {"launch_base", 0.5, "us", "derived: task less core time on one core (V0, V1, G0, G1)"},
    {"launch_block", 0.14, "us", "derived: task less core time on 24 and 48 cores (G2, V2, V3, V6)"},
    {"core_start", 11000, "cycles", "derived: core time less pipe time of copies (D1, D3)"},
};
#undef ADK
static_assert(sizeof(kTable) / sizeof(ConstInfo) == kConsts);

bool IsGm(const Operand& o) { return o.mem == Mem::GM; }

// Rows of a transfer, as contiguous runs in GM.
struct Rows {
  double count, bytes, lines;  // `lines`: bytes of the lines touched over bytes
};
Rows RowsOf(const Operand& gm, double line) {
  double count = 1;
  uint64_t step = 0;
  for (int i = 0; i < gm.dims; ++i) {
    count *= gm.dim[i].count;
    step |= static_cast<uint64_t>(gm.dim[i].stride);
  }
  const double bytes = gm.unit;
  // Where rows start within a line: the same for all if the stride is of whole lines, else anywhere on the
  // grid of the largest power of two in base and stride.
  const auto whole = static_cast<uint64_t>(line);
  const double least = std::ceil(bytes / line);
  double touched;
  if (step % whole == 0) {
    const double at = static_cast<double>(gm.base % whole);
    touched = std::ceil((at + bytes) / line);
  } else {
    const uint64_t mixed = (gm.base | step) & (whole - 1);
    const auto grid = static_cast<double>(mixed & (~mixed + 1));
    touched = std::max(least, 1 + (bytes - grid) / line);
  }
  return {count, bytes, touched / least};
}

Cost FromGm(const Record& r, const Costs& c, const Supply& s) {
  const Operand& gm = r.operand[1];
  const Rows rows = RowsOf(gm, c[Const::LineBytes]);
  double bytes = rows.bytes * rows.lines;
  if (gm.bypass) bytes += c[Const::BypassBurst];
  const bool l1 = r.operand[0].mem != Mem::UB;
  Cost cost;
  cost.from_hbm = rows.count * bytes * s.miss;
  cost.from_l2 = rows.count * bytes * (1 - s.miss);
  cost.miss = cost.from_hbm / c[Const::Mte2Miss];
  cost.hit = cost.from_l2 / c[l1 ? Const::Mte2L1Hit : Const::Mte2UbHit];
  double move = cost.miss * s.hbm_slow + cost.hit * s.l2_slow;
  if (s.hot_rate > 0) move = std::max(move, rows.count * rows.bytes / s.hot_rate);
  cost.occupancy = std::max(c[Const::Mte2Issue], rows.count * c[Const::Mte2Row] + move);
  cost.latency = c[Const::Mte2Latency];
  return cost;
}

Cost ToGm(const Record& r, const Costs& c, Const rate, Const row, Const latency) {
  const Rows rows = RowsOf(r.operand[0], c[Const::LineBytes]);
  Cost cost;
  cost.writes_gm = true;
  cost.occupancy = std::max(c[Const::Mte2Issue], rows.count * (c[row] + rows.bytes / c[rate]));
  cost.latency = c[latency];
  return cost;
}

Cost OnChip(const Record& r, const Costs& c) {
  const Operand& dst = r.operand[0];
  const auto bytes = static_cast<double>(BytesOf(dst));
  Cost cost;
  cost.latency = c[r.op == Op::Load3d ? Const::Mte1Latency3d : Const::Mte1Latency];
  const Const rate = dst.mem == Mem::L0A   ? Const::Mte1L0a
                     : dst.mem == Mem::L0B ? Const::Mte1L0b
                                           : Const::Mte1Table;
  cost.occupancy = bytes / c[rate] + c[Const::Mte1Issue];
  return cost;
}

Cost MmadCost(const Record& r, const Costs& c) {
  const uint32_t size = SizeOf(r.operand[1].type);
  // fp32 works on half a fractal row in two cycles (a quarter of fp16's rate).
  const uint32_t block = std::max(ColumnsOf(r.operand[1].type), 1u);
  const double beats = size == 4 ? 2 : 1;
  Cost cost;
  cost.occupancy =
      beats * CeilDiv(r.mmad.m, 16) * CeilDiv(r.mmad.n, 16) * CeilDiv(r.mmad.k, block) + c[Const::MmadHead];
  cost.latency = c[Const::MmadLatency];
  return cost;
}

double ElementsPerCycle(VecOp op, uint32_t bytes, const Costs& c) {
  const double full = c[Const::VectorBytes] / std::max(1u, bytes);
  switch (op) {
    case VecOp::Exp:
    case VecOp::Ln:
    case VecOp::Sqrt:
    case VecOp::Div:
      return c[Const::VectorSlow];
    case VecOp::MulAddDst:
    case VecOp::GatherMask:
      return full / 2;
    case VecOp::WholeReduceSum:
    case VecOp::WholeReduceMax:
    case VecOp::WholeReduceMin:
      return full / 7;
    case VecOp::BlockReduceSum:
    case VecOp::BlockReduceMax:
    case VecOp::BlockReduceMin:
      return bytes == 2 ? full / 7 : full;
    case VecOp::Sort32:
    case VecOp::RpSort16:
    case VecOp::MrgSort:
      return c[Const::SortRate];
    case VecOp::Gather:
      return c[Const::GatherRate];
    case VecOp::Gatherb:
      return 42.0 * 2 / std::max(2u, bytes);
    default:
      return full;
  }
}

Cost VectorCost(const Record& r, const Costs& c) {
  const VecArgs& v = r.vec;
  uint32_t bytes = 0;
  for (int i = 0; i < r.operands; ++i) bytes = std::max(bytes, SizeOf(r.operand[i].type));
  bytes = std::max(bytes, 1u);
  double per_repeat;
  if (v.op == VecOp::MrgSort) {
    double elements = 0;
    for (int i = 1; i < r.operands; ++i) elements += static_cast<double>(BytesOf(r.operand[i])) / 8;
    per_repeat = elements / c[Const::SortRate] / std::max(1u, v.repeat);
  } else if (v.op == VecOp::Sort32) {
    per_repeat = 32 / c[Const::SortRate];
  } else {
    const double lanes = c[Const::VectorBytes] / bytes;
    per_repeat = lanes / ElementsPerCycle(v.op, bytes, c);
  }
  Cost cost;
  cost.occupancy =
      v.repeat * std::max(per_repeat, BankBeats(r, c[Const::VectorReadWrite])) + c[Const::VectorFixed];
  return cost;
}

}  // namespace

const ConstInfo& InfoOf(Const which) { return kTable[static_cast<int>(which)]; }

Costs::Costs() {
  for (int i = 0; i < kConsts; ++i) value_[i] = kTable[i].value;
}

std::string Costs::Override(const char* text) {
  std::string rest = text != nullptr ? text : "";
  while (!rest.empty()) {
    const size_t comma = rest.find(',');
    const std::string part = rest.substr(0, comma);
    rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
    const size_t equals = part.find('=');
    const std::string name = part.substr(0, equals);
    int found = 0;
    while (found < kConsts && name != kTable[found].name) ++found;
    if (found == kConsts) return "unknown constant '" + name + "'";
    char* end = nullptr;
    const std::string number = equals == std::string::npos ? "" : part.substr(equals + 1);
    const double value = std::strtod(number.c_str(), &end);
    if (number.empty() || *end != '\0' || !std::isfinite(value) || value < 0)
      return "constant '" + name + "' is '" + number + "', it must be a number of at least 0";
    value_[found] = value;
  }
  return "";
}

Cost CostOf(const Record& r, const Costs& c, const Supply& s) {
  Cost cost;
  if (r.nop) return cost;
  switch (r.op) {
    case Op::Copy:
    case Op::CopyPad:
    case Op::Nd2Nz:
    case Op::Load2d:
    case Op::LoadTranspose:
    case Op::Load3d:
    case Op::Nz2Nd:
      if (r.operands > 1 && IsGm(r.operand[1])) return FromGm(r, c, s);
      if (IsGm(r.operand[0])) return ToGm(r, c, Const::Mte3Rate, Const::Mte3Row, Const::Mte3Latency);
      if (r.pipe == Pipe::V) {
        cost.occupancy =
            static_cast<double>(BytesOf(r.operand[0])) / c[Const::VectorBytes] + c[Const::VectorFixed];
        return cost;
      }
      if (r.pipe == Pipe::MTE3) {
        cost.occupancy = static_cast<double>(BytesOf(r.operand[0])) / c[Const::Mte3Rate];
        cost.latency = c[Const::Mte3Latency];
        return cost;
      }
      return OnChip(r, c);
    case Op::Fill:
      return OnChip(r, c);
    case Op::Mmad:
      return MmadCost(r, c);
    case Op::Fixpipe:
      if (IsGm(r.operand[0])) return ToGm(r, c, Const::FixGm, Const::FixRow, Const::FixLatency);
      cost.occupancy = static_cast<double>(r.fix.m) * r.fix.n * r.fix.nd / c[Const::FixL1];
      cost.latency = c[Const::FixLatency];
      return cost;
    case Op::Vector:
      return VectorCost(r, c);
    case Op::ScalarGet:
    case Op::ScalarSet:
      cost.occupancy = c[IsGm(r.operand[0]) ? Const::ScalarGm : Const::ScalarAccess];
      return cost;
    default:
      return cost;
  }
}

std::string ConstantsJson() {
  std::string out = "[";
  for (const ConstInfo& info : kTable) {
    char value[32];
    std::snprintf(value, sizeof value, "%.6g", info.value);
    out += std::string(out.size() > 1 ? ", " : "") + "{\"name\": \"" + info.name + "\", \"value\": " + value +
           ", \"unit\": \"" + info.unit + "\", \"source\": \"" + Escape(info.source) + "\"}";
  }
  return out + "]";
}

}  // namespace tilewright::twin::timing
