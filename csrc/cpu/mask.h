#pragma once

#include <cstdint>
#include <cstring>

#include "../common/inline.h"

namespace daqakd::cpu {

// Masks of 1, 2, 4 or 8 bits per element, the first in the lowest bits; codes take a byte each.
template <int kBits>
struct PackMask {
  static constexpr int kPerByte = 8 / kBits;

  // Codes of 4 or 8 neighbours are one little-endian number; shifts bring them side by side.
  DAQAKD_INLINE static uint8_t byte(const uint8_t* codes) {
    if constexpr (kBits == 8) {
      return *codes;
    } else if constexpr (kBits == 4) {
      return uint8_t(codes[0] | codes[1] << 4);
    } else if constexpr (kBits == 2) {
      uint32_t v;
      std::memcpy(&v, codes, sizeof v);
      return uint8_t(v | v >> 6 | v >> 12 | v >> 18);
    } else {
      uint64_t v;
      std::memcpy(&v, codes, sizeof v);
      return uint8_t((v * 0x0102040810204080u) >> 56);
    }
  }

  // The last byte is padded with zeros.
  DAQAKD_INLINE static void run(
      const uint8_t* __restrict__ codes, int64_t n, uint8_t* __restrict__ mask) {
    const int64_t whole = n / kPerByte;
    for (int64_t i = 0; i < whole; ++i) mask[i] = byte(codes + i * kPerByte);
    if (n % kPerByte != 0) {
      uint8_t rest[kPerByte] = {};
      std::memcpy(rest, codes + whole * kPerByte, n % kPerByte);
      mask[whole] = byte(rest);
    }
  }
};

// The codes of one byte of a mask, as kPerByte bytes.
template <int kBits>
DAQAKD_INLINE void unpack_byte(uint8_t byte, uint8_t* codes) {  // [8 / kBits]
  if constexpr (kBits == 8) {
    *codes = byte;
  } else if constexpr (kBits == 4) {
    codes[0] = byte & 0xfu;
    codes[1] = byte >> 4;
  } else if constexpr (kBits == 2) {
    const uint32_t b = byte, v = (b | b << 6 | b << 12 | b << 18) & 0x03030303u;
    std::memcpy(codes, &v, sizeof v);
  } else {
    const uint64_t low = byte & 0x7fu, high = byte >> 7;
    const uint64_t v = ((low * 0x0002040810204081u) & 0x0101010101010101u) | high << 56;
    std::memcpy(codes, &v, sizeof v);
  }
}

}  // namespace daqakd::cpu
