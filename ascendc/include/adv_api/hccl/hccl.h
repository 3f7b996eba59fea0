// Refused by name.
#pragma once

#error "adv_api/hccl/hccl.h is Hccl, which is adv_api; the twin models the basic API only (docs/twin-api.md)"
