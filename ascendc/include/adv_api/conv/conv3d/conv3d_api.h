// Refused by name.
#pragma once

#error \
    "adv_api/conv/conv3d/conv3d_api.h is Conv3D, which is adv_api; the twin models the basic API only (docs/twin-api.md)"
