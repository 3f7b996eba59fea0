// The AscendC basic API of the 910B (NPU architecture 2201) for the twin: documented names and behaviour,
// original code. Sources: docs/zh/api/SIMD-API of mirror-cann/asc-devkit. A kernel includes this file alone,
// here as with CANN.
#pragma once

#include "api/adv_api.h"
#include "api/atomic.h"
#include "api/cross_core.h"
#include "api/cube.h"
#include "api/data_copy.h"
#include "api/data_copy_forms.h"
#include "api/debug.h"
#include "api/enums.h"
#include "api/load_data.h"
#include "api/memory.h"
#include "api/params.h"
#include "api/pipe.h"
#include "api/queue.h"
#include "api/scalar.h"
#include "api/scalar_utils.h"
#include "api/sync.h"
#include "api/system.h"
#include "api/task.h"
#include "api/tensor.h"
#include "api/tiling.h"
#include "api/types.h"
#include "api/vector_binary.h"
#include "api/vector_cast.h"
#include "api/vector_common.h"
#include "api/vector_gather.h"
#include "api/vector_move.h"
#include "api/vector_reduce.h"
#include "api/vector_scalar.h"
#include "api/vector_select.h"
#include "api/vector_sort.h"
#include "api/vector_unary.h"

namespace AscendC {
using ::bfloat16_t;
using ::half;
using ::int4b_t;
}  // namespace AscendC
