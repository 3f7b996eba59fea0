// A part of the API by its own path. Lists of tensors (ListTensorDesc) are refused: see docs/twin-api.md.
#pragma once

#include "kernel_operator.h"
