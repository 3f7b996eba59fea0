// Matmul of adv_api by another of its documented paths.
#pragma once

#include "lib/matmul_intf.h"
