#pragma once

// Formulas are inlined into every caller: host loops vectorize them, kernels use them as they are.
#if defined(__CUDACC__)
#define DAQAKD_INLINE __host__ __device__ __forceinline__
#else
#define DAQAKD_INLINE [[gnu::always_inline]] inline
#endif
