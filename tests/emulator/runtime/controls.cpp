#include "state.h"

// For Python, by ctypes.
#define EMULATOR_CONTROL extern "C" __attribute__((visibility("default")))

// Threads and blocks run in order (0), from the last to the first (1), or at random.
EMULATOR_CONTROL void emulator_order(int64_t seed) { emulator::set_order(seed); }

// Only the first and last n blocks of a launch run; 0 for all.
EMULATOR_CONTROL void emulator_sample(int64_t n) { emulator::device.sampled_blocks = n; }

// Ops are told whether a graph records their launches, which run all the same.
EMULATOR_CONTROL void emulator_capture(int64_t on) { emulator::device.capturing = on != 0; }
// After so many pages of memory, the next launch forgets who touched what.
EMULATOR_CONTROL void emulator_remember(int64_t pages) { emulator::remember(size_t(pages)); }

EMULATOR_CONTROL const emulator::Counts* emulator_counts() { return &emulator::device.counts; }

// Tensors that ops have made and neither freed nor returned.
EMULATOR_CONTROL int64_t emulator_living_tensors() { return emulator::living_tensors(); }
