// A part of the API by its own path.
#pragma once

#include "kernel_operator.h"
