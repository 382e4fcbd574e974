#pragma once

#include "../common/inline.h"

// What elementwise ops share. An op is a small struct:
//   prepare(parameter)    what the others take, made once per channel
//   value(x, prepared)    forward: one output
//   code(x, prepared)     its code in a mask of kBits bits per element; kBits = 0 without
//   gradient(g, x or code, prepared)    backward: dx (if kHasDx) and what it adds to kSums sums
namespace daqakd {

// dx of one element, and what the element adds to N sums.
template <class T, int N>
struct Contribution {
  T dx;
  T sums[N > 0 ? N : 1];
};

// The base of ops without a parameter.
struct Unparameterized {
  struct Prepared {};
  DAQAKD_INLINE Prepared prepare(auto) const { return {}; }
};

}  // namespace daqakd
