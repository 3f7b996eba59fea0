// A part of AscendCL by its own name.
#pragma once

#include "acl/acl.h"
