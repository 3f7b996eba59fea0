// Refused by name.
#pragma once

#error \
    "kernel_tiling/kernel_tiling.h is the tiling of adv_api (TCubeTiling and its like), which is adv_api; the twin models the basic API only (docs/twin-api.md)"
