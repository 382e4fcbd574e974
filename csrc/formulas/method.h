#pragma once

#include <cstdint>

namespace daqakd {

// The quantizer of an activation, as daqakd/_ops.py numbers them.
enum class Method : int64_t { none = 0, lsq = 1, pact = 2, dorefa = 3, ewgs = 4 };

}  // namespace daqakd
