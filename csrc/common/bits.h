#pragma once

#include <cstring>

#include "inline.h"

namespace daqakd {

// The same bits as another type of the same size.
template <class To, class From>
DAQAKD_INLINE To bits_as(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  memcpy(&result, &value, sizeof result);
  return result;
}

}  // namespace daqakd
