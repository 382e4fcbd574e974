#pragma once

#include <cstdint>

namespace daqakd {

inline int64_t packed_size(int64_t count, int bits) { return (count * bits + 7) / 8; }

// One dense little-endian bit stream: code i takes bits [i * bits, (i + 1) * bits). Eight codes
// make exactly `bits` bytes, so groups of eight are independent. False when a code does not fit.
inline bool pack(const uint8_t* codes, int64_t count, int bits, uint8_t* packed) {
  uint8_t seen = 0;
  for (int64_t group = 0; group < count; group += 8) {
    uint64_t word = 0;
    const int codes_here = count - group < 8 ? int(count - group) : 8;
    for (int i = 0; i < codes_here; ++i) {
      seen |= codes[group + i];
      word |= uint64_t(codes[group + i]) << (i * bits);
    }
    const int64_t bytes = packed_size(codes_here, bits);
    for (int64_t i = 0; i < bytes; ++i) *packed++ = uint8_t(word >> (8 * i));
  }
  return bits == 8 || seen >> bits == 0;
}

inline void unpack(const uint8_t* packed, int64_t count, int bits, uint8_t* codes) {
  const uint8_t mask = uint8_t((1 << bits) - 1);
  for (int64_t group = 0; group < count; group += 8) {
    uint64_t word = 0;
    const int codes_here = count - group < 8 ? int(count - group) : 8;
    const int64_t bytes = packed_size(codes_here, bits);
    for (int64_t i = 0; i < bytes; ++i) word |= uint64_t(*packed++) << (8 * i);
    for (int i = 0; i < codes_here; ++i) codes[group + i] = uint8_t(word >> (i * bits)) & mask;
  }
}

}  // namespace daqakd
