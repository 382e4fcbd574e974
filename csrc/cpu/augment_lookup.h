#pragma once

#include <cstdint>

#include "simd.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace daqakd::cpu {

#if defined(__x86_64__)

inline bool has_byte_shuffles() {
  static const bool found = __builtin_cpu_supports("avx512vbmi");
  return found && instruction_set() == InstructionSet::avx512;
}

// 64 look-ups at once, which no compiler finds: the table is four registers, of which a shuffle
// reads two and the value's top bit chooses the pair.
[[gnu::target("avx512f,avx512bw,avx512vbmi")]] inline void shuffle(
    uint8_t* pixels, int64_t n, const uint8_t* table) {
  __m512i parts[4];
  for (int k = 0; k < 4; ++k) parts[k] = _mm512_loadu_si512(table + 64 * k);
  for (int64_t i = 0; i < n; i += 64) {
    const __mmask64 valid = n - i < 64 ? (uint64_t(1) << (n - i)) - 1 : ~uint64_t(0);
    const __m512i v = _mm512_maskz_loadu_epi8(valid, pixels + i);
    const __m512i low = _mm512_permutex2var_epi8(parts[0], v, parts[1]);
    const __m512i high = _mm512_permutex2var_epi8(parts[2], v, parts[3]);
    const __m512i found = _mm512_mask_blend_epi8(_mm512_movepi8_mask(v), low, high);
    _mm512_mask_storeu_epi8(pixels + i, valid, found);
  }
}

#else

inline bool has_byte_shuffles() { return false; }
inline void shuffle(uint8_t*, int64_t, const uint8_t*) {}

#endif

// table: a byte for each value.
inline void look_up(uint8_t* pixels, int64_t n, const uint8_t* table) {
  if (has_byte_shuffles()) return shuffle(pixels, n, table);
  for (int64_t i = 0; i < n; ++i) pixels[i] = table[pixels[i]];
}

}  // namespace daqakd::cpu
