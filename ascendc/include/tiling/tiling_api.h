// Refused by name.
#pragma once

#error \
    "tiling/tiling_api.h is the host-side tiling of adv_api, which is adv_api; the twin models the basic API only (docs/twin-api.md)"
