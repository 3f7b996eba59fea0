// What CANN's build generates beside a kernel: here a kernel's own headers define its tiling. Of adv_api's
// tiling there is only the name.
#pragma once

#include "kernel_operator.h"

struct TCubeTiling;
