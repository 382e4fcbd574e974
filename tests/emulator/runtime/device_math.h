#pragma once

// Numbers as the device has them: atomics, bits, and 16-bit floats that round to nearest even.
template <class T>
T atomicAdd(T* address, T value) {
  return emulator::atomic(address, [=](T old) { return T(old + value); });
}
template <class T>
T atomicMin(T* address, T value) {
  return emulator::atomic(address, [=](T old) { return old < value ? old : value; });
}
template <class T>
T atomicMax(T* address, T value) {
  return emulator::atomic(address, [=](T old) { return old > value ? old : value; });
}
inline unsigned atomicInc(unsigned* address, unsigned most) {
  return emulator::atomic(address, [=](unsigned old) { return old >= most ? 0u : old + 1; });
}

template <class T>
T __ldcg(const T* address) {
  return *address;
}
template <class T>
T max(T a, T b) {
  return a < b ? b : a;
}
template <class T>
T min(T a, T b) {
  return b < a ? b : a;
}
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline unsigned __float_as_uint(float x) {
  unsigned bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

struct __half {
  uint16_t bits;
};
struct __nv_bfloat16 {
  uint16_t bits;
};
constexpr uint16_t kDeviceNaN = 0x7fff;  // what the device makes of every NaN

inline float __half2float(__half x) {
  _Float16 wide;
  memcpy(&wide, &x, sizeof wide);
  return float(wide);
}
inline float __bfloat162float(__nv_bfloat16 x) { return __uint_as_float(unsigned(x.bits) << 16); }
inline __half __float2half_rn(float x) {
  const _Float16 narrow = _Float16(x);
  __half result;
  memcpy(&result, &narrow, sizeof result);
  return x != x ? __half{kDeviceNaN} : result;
}
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  const unsigned bits = __float_as_uint(x), rounded = bits + 0x7fffu + (bits >> 16 & 1u);
  return {uint16_t(x != x ? kDeviceNaN : rounded >> 16)};
}
