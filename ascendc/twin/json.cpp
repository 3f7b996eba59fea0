// Records, findings and counts as JSON.
#include <cstdio>

#include "machine.h"

namespace tilewright::twin {

namespace {

std::string Str(uint64_t v) { return std::to_string(v); }

class Object {
 public:
  Object& Raw(const char* key, const std::string& value) {
    text_ += (text_.empty() ? "{\"" : ", \"") + std::string(key) + "\": " + value;
    return *this;
  }
  Object& Text(const char* key, const std::string& value) { return Raw(key, "\"" + Escape(value) + "\""); }
  Object& Number(const char* key, uint64_t value) { return Raw(key, Str(value)); }
  std::string Close() const { return text_.empty() ? "{}" : text_ + "}"; }

 private:
  std::string text_;
};

std::string OperandJson(const Operand& o) {
  std::string dims = "[";
  for (int i = 0; i < o.dims; ++i)
    dims += (i > 0 ? ", [" : "[") + Str(o.dim[i].count) + ", " + std::to_string(o.dim[i].stride) + "]";
  return Object()
      .Text("memory", Name(o.mem))
      .Text("type", Name(o.type))
      .Raw("write", o.write ? "true" : "false")
      .Number("base", o.base)
      .Number("unit", o.unit)
      .Raw("dims", dims + "]")
      .Close();
}

std::string ParamsJson(const Record& r) {
  Object o;
  switch (r.op) {
    case Op::Mmad:
      o.Number("m", r.mmad.m).Number("n", r.mmad.n).Number("k", r.mmad.k);
      o.Number("init", static_cast<int>(r.mmad.init)).Number("unit_flag", r.mmad.unit_flag);
      break;
    case Op::Fixpipe:
      o.Number("m", r.fix.m).Number("n", r.fix.n).Number("quant", static_cast<int>(r.fix.quant));
      o.Number("unit_flag", r.fix.unit_flag).Number("to_nd", r.fix.to_nd ? 1 : 0);
      break;
    case Op::Nd2Nz:
      o.Number("nd", r.nd2nz.nd).Number("n", r.nd2nz.n).Number("d", r.nd2nz.d).Number("src_d", r.nd2nz.src_d);
      break;
    case Op::Load2d:
    case Op::LoadTranspose:
      o.Number("repeat", r.load2d.repeat).Number("transpose", r.load2d.transpose ? 1 : 0);
      break;
    case Op::SetFlag:
    case Op::WaitFlag:
      o.Text("from", Name(r.flag.from)).Text("to", Name(r.flag.to)).Raw("id", std::to_string(r.flag.id));
      break;
    case Op::Barrier:
      o.Text("pipe", Name(r.barrier.pipe));
      break;
    default:
      break;
  }
  return o.Close();
}

}  // namespace

std::string Escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(c));
      out += code;
    } else {
      out += c;
    }
  }
  return out;
}

std::string RecordJson(int block, const Record& r) {
  std::string operands = "[";
  for (int i = 0; i < r.operands; ++i) operands += (i > 0 ? ", " : "") + OperandJson(r.operand[i]);
  return Object()
      .Number("block", static_cast<uint64_t>(block))
      .Number("seq", r.seq)
      .Text("pipe", Name(r.pipe))
      .Text("op", SlotName(SlotOf(r)))
      .Text("file", r.at.file)
      .Number("line", static_cast<uint64_t>(r.at.line))
      .Raw("nop", r.nop ? "true" : "false")
      .Raw("operands", operands + "]")
      .Raw("params", ParamsJson(r))
      .Close();
}

std::string FindingsJson(const std::vector<Finding>& findings) {
  std::string out = "[";
  for (const Finding& f : findings) {
    Object o;
    o.Text("kind", Name(f.kind)).Text("message", f.message).Text("file", f.at.file);
    o.Number("line", static_cast<uint64_t>(f.at.line)).Number("block", static_cast<uint64_t>(f.block));
    o.Text("pipe", Name(f.pipe)).Text("memory", f.has_memory ? Name(f.mem) : "");
    o.Raw("range", "[" + Str(f.begin) + ", " + Str(f.end) + "]");
    o.Raw("allowed", "[" + Str(f.allowed_begin) + ", " + Str(f.allowed_end) + "]");
    o.Number("count", f.count).Text("core", f.core).Text("missing", f.missing);
    if (f.other.file != nullptr)
      o.Text("other_file", f.other.file).Number("other_line", static_cast<uint64_t>(f.other.line));
    o.Text("other_pipe", f.other.file != nullptr ? Name(f.other_pipe) : "");
    out += (out.size() > 1 ? ", " : "") + o.Close();
  }
  return out + "]";
}

std::string TextsJson(const std::vector<std::string>& texts) {
  std::string out = "[";
  for (const std::string& text : texts) out += (out.size() > 1 ? ", \"" : "\"") + Escape(text) + "\"";
  return out + "]";
}

std::string CountsJson(const Counts& counts) {
  Object pipes, moved, peak;
  for (int p = 0; p < kPipes; ++p) {
    Object ops;
    for (int o = 0; o < kSlots; ++o)
      if (counts.issued[p][o] != 0) ops.Number(SlotName(o), counts.issued[p][o]);
    if (ops.Close() != "{}") pipes.Raw(Name(static_cast<Pipe>(p)), ops.Close());
    Object memories;
    for (int m = 0; m < kMems; ++m)
      if (counts.bytes_written[p][m] != 0)
        memories.Number(Name(static_cast<Mem>(m)), counts.bytes_written[p][m]);
    if (memories.Close() != "{}") moved.Raw(Name(static_cast<Pipe>(p)), memories.Close());
  }
  for (int m = 1; m < kMems; ++m) peak.Number(Name(static_cast<Mem>(m)), counts.peak[m]);
  return Object()
      .Raw("counts", pipes.Close())
      .Raw("bytes_written", moved.Close())
      .Number("macs", counts.macs)
      .Raw("peak", peak.Close())
      .Close();
}

}  // namespace tilewright::twin
