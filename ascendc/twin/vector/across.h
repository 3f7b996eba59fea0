// The instructions of pipe V that work across lanes and addresses, for the table in ops.cpp.
#pragma once

#include "machine.h"

namespace tilewright::twin {

void DescribeReduce(Record& r);
bool CheckReduce(Core& core, const Record& r);
void ExecuteReduce(Core& core, const Record& r);
uint32_t AlignReduce(const Record& r, int operand);

void DescribeReduceAll(Record& r);
bool CheckReduceAll(Core& core, const Record& r);
void ExecuteReduceAll(Core& core, const Record& r);
uint32_t AlignReduceAll(const Record& r, int operand);

void DescribeSort32(Record& r);
bool CheckSort32(Core& core, const Record& r);
void ExecuteSort32(Core& core, const Record& r);

void DescribeMrgSort(Record& r);
bool CheckMrgSort(Core& core, const Record& r);
void ExecuteMrgSort(Core& core, const Record& r);
uint32_t AlignMrgSort(const Record& r, int operand);

void DescribeGather(Record& r);
bool CheckGather(Core& core, const Record& r);
void ExecuteGather(Core& core, const Record& r);
void ResolveGather(Core& core, Record& r);

void DescribeGatherb(Record& r);
bool CheckGatherb(Core& core, const Record& r);
void ExecuteGatherb(Core& core, const Record& r);
void ResolveBlocks(Core& core, Record& r);  // of Gatherb and BilinearInterpolation

void DescribeGatherMask(Record& r);
bool CheckGatherMask(Core& core, const Record& r);
void ExecuteGatherMask(Core& core, const Record& r);

void DescribeBrcb(Record& r);
bool CheckBrcb(Core& core, const Record& r);
void ExecuteBrcb(Core& core, const Record& r);

void DescribeCopyRepeat(Record& r);
bool CheckCopyRepeat(Core& core, const Record& r);
void ExecuteCopyRepeat(Core& core, const Record& r);

void DescribeBilinear(Record& r);
bool CheckBilinear(Core& core, const Record& r);
void ExecuteBilinear(Core& core, const Record& r);

void DescribeTranspose(Record& r);
bool CheckTranspose(Core& core, const Record& r);
void ExecuteTranspose(Core& core, const Record& r);

void DescribeTransData(Record& r);
bool CheckTransData(Core& core, const Record& r);
void ExecuteTransData(Core& core, const Record& r);
uint32_t AlignTransData(const Record& r, int operand);

}  // namespace tilewright::twin
