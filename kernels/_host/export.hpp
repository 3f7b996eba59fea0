// The library is built with hidden visibility; what is marked here is its interface.
#pragma once

#define TW_EXPORT extern "C" __attribute__((visibility("default")))
