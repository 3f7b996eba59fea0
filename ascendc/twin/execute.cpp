// Which function computes an instruction.
#include <cstring>

#include "machine.h"

namespace tilewright::twin {

void Execute(Core& core, Record& r) {
  switch (r.op) {
    case Op::Copy:
      return ExecuteCopy(core, r);
    case Op::CopyPad:
      return ExecuteCopyPad(core, r);
    case Op::Nd2Nz:
      return ExecuteNd2Nz(core, r);
    case Op::Nz2Nd:
      return ExecuteNz2Nd(core, r);
    case Op::Fill:
      return ExecuteFill(core, r);
    case Op::Load2d:
      return ExecuteLoad2d(core, r);
    case Op::LoadTranspose:
      return ExecuteLoadTranspose(core, r);
    case Op::Load3d:
      return ExecuteLoad3d(core, r);
    case Op::Mmad:
      return ExecuteMmad(core, r);
    case Op::Fixpipe:
      return ExecuteFixpipe(core, r);
    case Op::ScalarGet:
      r.scalar.bits = 0;
      for (const GmBuffer& b : core.machine().buffers)
        if (!b.backed && r.operand[0].mem == Mem::GM && r.operand[0].base - b.base < b.bytes) return;
      std::memcpy(&r.scalar.bits, core.At(r.operand[0]), r.scalar.size);
      return;
    case Op::ScalarSet:
      std::memcpy(core.At(r.operand[0]), &r.scalar.bits, r.scalar.size);
      return;
    case Op::Vector:
      return ExecuteVector(core, r);
    case Op::ReadState:
      r.state.bits = core.Word(static_cast<StateWord>(r.state.what));
      return;
    default:
      return;
  }
}

}  // namespace tilewright::twin
