#pragma once

#include <cuda_runtime.h>

// What only the CUDA compiler can say. The tests' emulator, which runs these sources on a CPU,
// defines all three itself.
#if !defined(DAQAKD_EMULATED)

#define DAQAKD_LAUNCH(kernel, blocks, threads, bytes, stream, ...) \
  kernel<<<blocks, threads, bytes, stream>>>(__VA_ARGS__)

// 16 bytes at once: of a store by members the compiler makes one for each element.
#define DAQAKD_STORE_16(address, bits)                                                         \
  asm volatile(                                                                                \
      "st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"((bits).x), "r"((bits).y), \
      "r"((bits).z), "r"((bits).w))

// The memory of a block that its launch asks for, as an array of `type`.
#define DAQAKD_DYNAMIC_SHARED(type, name) extern __shared__ __align__(16) type name[]

#endif
