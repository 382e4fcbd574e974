#pragma once

#include <cstddef>
#include <cstdint>

// What emulated kernels ask of the device. One launch runs at a time, on one thread of the CPU.
namespace emulator {

struct Index {
  unsigned x, y, z;
};

// Where the running thread stands.
struct Place {
  Index thread, block, block_size, grid;
};
extern Place place;
extern char* dynamic_shared;

constexpr size_t kMostShared = 232448;  // bytes that a block of an H100 can have
constexpr size_t kMostParameters = 4096;
constexpr int kWarp = 32, kMostThreads = 1024;

struct Site {
  const char* file;
  int line;
};
#define EMULATOR_SITE (::emulator::Site{__FILE__, __LINE__})

// The kernel behind a type-erased pair: body(kernel, parameters) calls it for one thread.
struct Kernel {
  void* function;
  void (*body)(void* function, void* parameters);
  void* parameters;
  size_t parameter_bytes;
};

// Throws what the launch did wrong.
void run(const Kernel& kernel, Index grid, Index block, size_t shared_bytes);
bool allow_shared(void* function, size_t bytes);
bool is_capturing();

void barrier(Site site);
void fence();
[[noreturn]] void trap(Site site);
int lane();

// All lanes of `mask` meet: `value` becomes that of the lane `source`, all ones where it is absent.
void shuffle(Site site, unsigned mask, int source, void* value, size_t size);
// `values` receives every lane's value; those outside the mask are left alone.
void gather(Site site, unsigned mask, uint64_t value, uint64_t (&values)[kWarp]);
void warp_barrier(Site site, unsigned mask);

// Accesses that the compiler does not announce; `pc` is where the source stands.
void vector_access(const void* address, size_t size, bool writes, const void* pc);
void atomic_access(const void* address, size_t size, const void* pc);

}  // namespace emulator
