// A launch (Machine, base.h), one core of it (Core, core.h), and the stages an instruction goes through.
#pragma once

#include "base.h"
#include "core.h"

namespace tilewright::twin {

// The stages of Core::Emit.
void Describe(Record& record);                 // parameters -> operand ranges
bool Check(Core& core, const Record& record);  // true: fit to execute
void Execute(Core& core, Record& record);  // moves and computes; data for ScalarGet comes back in the record
bool IsNop(const Record& record);          // documented no-operations: a size or repeat of zero

void ExecuteCopy(Core& core, const Record& record);
void ExecuteCopyPad(Core& core, const Record& record);
void ExecuteNd2Nz(Core& core, const Record& record);
void ExecuteNz2Nd(Core& core, const Record& record);
void ExecuteFill(Core& core, const Record& record);
void ExecuteLoad2d(Core& core, const Record& record);
void ExecuteLoadTranspose(Core& core, const Record& record);
void ExecuteLoad3d(Core& core, const Record& record);
void ExecuteMmad(Core& core, const Record& record);
void ExecuteFixpipe(Core& core, const Record& record);

// Pipe V: vector/ops.h.
void DescribeVector(Record& record);
bool CheckVector(Core& core, const Record& record);
void ExecuteVector(Core& core, const Record& record);
void ResolveVector(Core& core, Record& record);
bool IsNopVector(const Record& record);
// Bytes that the address of an operand of a vector instruction must be a multiple of.
uint32_t VectorAlignment(const Record& record, int operand);
const char* Name(VecOp op);

// One line, one object.
std::string RecordJson(int block, const Record& record);
std::string FindingsJson(const std::vector<Finding>& findings);
std::string TextsJson(const std::vector<std::string>& texts);
std::string CountsJson(const Counts& counts);
std::string Escape(const std::string& text);

}  // namespace tilewright::twin
