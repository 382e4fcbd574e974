#pragma once

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "../common/inline.h"

namespace daqakd::cpu {

constexpr int kLanes = 16;  // partial sums side by side, on every instruction set

// Before a loop whose iterations touch different elements: spares the compiler's test that they do.
#if defined(__clang__)
#define DAQAKD_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define DAQAKD_INDEPENDENT _Pragma("GCC ivdep")
#endif

// Order of the additions is part of the result: lane i + lane i + N / 2, then + N / 4, ..., + 1.
template <int N = kLanes, class T>
DAQAKD_INLINE T add_lanes(T* lanes) {  // [N]
  if constexpr (N > 1) {
    for (int i = 0; i < N / 2; ++i) lanes[i] += lanes[i + N / 2];
    return add_lanes<N / 2>(lanes);
  }
  return lanes[0];
}

#if defined(__x86_64__)

enum class InstructionSet { baseline, avx2, avx512 };

// DAQAKD_CPU=baseline|avx2 lowers the choice; the results are the same bits.
inline InstructionSet instruction_set() {
  static const InstructionSet chosen = [] {
    const char* value = std::getenv("DAQAKD_CPU");
    const std::string_view limit = value ? value : "";
    const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (limit == "baseline" || !has_avx2) return InstructionSet::baseline;
    const bool has_avx512 = __builtin_cpu_supports("avx512f") &&
                            __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512vl");
    return limit == "avx2" || !has_avx512 ? InstructionSet::avx2 : InstructionSet::avx512;
  }();
  return chosen;
}

template <class Body, class... Args>
[[gnu::target("avx512f,avx512bw,avx512vl,fma"), gnu::noinline]] auto run_avx512(Args... args) {
  return Body::run(args...);
}

template <class Body, class... Args>
[[gnu::target("avx2,fma"), gnu::noinline]] auto run_avx2(Args... args) {
  return Body::run(args...);
}

// Body::run is always inlined, so each caller compiles it for its own instruction set.
template <class Body, class... Args>
auto run(Args... args) {
  switch (instruction_set()) {
    case InstructionSet::avx512:
      return run_avx512<Body>(args...);
    case InstructionSet::avx2:
      return run_avx2<Body>(args...);
    default:
      return Body::run(args...);
  }
}

#else

template <class Body, class... Args>
auto run(Args... args) {
  return Body::run(args...);
}

#endif

}  // namespace daqakd::cpu
