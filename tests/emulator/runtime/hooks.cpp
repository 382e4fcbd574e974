#include "state.h"

// The kernels are compiled for the thread and the undefined-behaviour sanitizers, and linked with
// these functions in place of the sanitizers' runtimes: every access and every broken rule of C++
// comes by here.
using emulator::access;
using emulator::device;

#define EMULATOR_ACCESS(name, size, writes)                            \
  extern "C" void __tsan_##name(void* address) {                       \
    if (!device.running) return;                                       \
    access(address, size, writes, false, __builtin_return_address(0)); \
  }
#define EMULATOR_BOTH(size)                          \
  EMULATOR_ACCESS(read##size, size, false)           \
  EMULATOR_ACCESS(write##size, size, true)           \
  EMULATOR_ACCESS(unaligned_read##size, size, false) \
  EMULATOR_ACCESS(unaligned_write##size, size, true)
EMULATOR_BOTH(1)
EMULATOR_BOTH(2)
EMULATOR_BOTH(4)
EMULATOR_BOTH(8)
EMULATOR_BOTH(16)

#define EMULATOR_RANGE(name, writes)                                    \
  extern "C" void __tsan_##name(void* address, long size) {             \
    char* const first = static_cast<char*>(address);                    \
    for (long i = 0; device.running && i < size; ++i)                   \
      access(first + i, 1, writes, false, __builtin_return_address(0)); \
  }
EMULATOR_RANGE(read_range, false)
EMULATOR_RANGE(write_range, true)

extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_vptr_update(void*, void*) {}
// of the host's own code
extern "C" int __tsan_atomic32_fetch_add(volatile int* address, int value, int) {
  return __atomic_fetch_add(address, value, __ATOMIC_SEQ_CST);
}
extern "C" char __tsan_atomic8_load(const volatile char* address, int) {
  return __atomic_load_n(address, __ATOMIC_SEQ_CST);
}

// What a handler gets first begins with where the source stands.
struct SourcePlace {
  const char* file;
  uint32_t line, column;
};
#define EMULATOR_UNDEFINED(name)                                                                \
  extern "C" void __ubsan_handle_##name(void* data, ...) {                                      \
    const auto* place = static_cast<const SourcePlace*>(data);                                  \
    emulator::report(#name, emulator::place_of(emulator::Site{place->file, int(place->line)})); \
  }
EMULATOR_UNDEFINED(out_of_bounds)
EMULATOR_UNDEFINED(shift_out_of_bounds)
EMULATOR_UNDEFINED(divrem_overflow)
EMULATOR_UNDEFINED(add_overflow)
EMULATOR_UNDEFINED(sub_overflow)
EMULATOR_UNDEFINED(mul_overflow)
EMULATOR_UNDEFINED(negate_overflow)
EMULATOR_UNDEFINED(float_cast_overflow)
EMULATOR_UNDEFINED(load_invalid_value)
