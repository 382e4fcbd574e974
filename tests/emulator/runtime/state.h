#pragma once

#include <string>
#include <vector>

#include "emulator.h"

// The emulated device, shared by the files of the runtime. Nothing here is thread-local: that
// memory is the shared memory of the kernels.
namespace emulator {

// Counts what separates accesses: launches, blocks and barriers. 0 is before everything.
using Epoch = uint32_t;

enum class State { ready, at_barrier, at_exchange, done };

// A thread of the running block.
struct Fiber {
  void* stack_pointer;
  State state;
  Site site;          // where it waits
  unsigned mask;      // of the lanes it meets
  int source;         // the lane whose value it wants
  bool orders;        // the meeting orders memory, as __syncwarp does
  Epoch block_since;  // what the other threads did before is ordered before what comes
  Epoch warp_since;   // likewise for its own warp
  bool released;      // a fence came after its last write
  bool acquired;      // a fence came after the block's atomic that others' atomics precede
  uint64_t* gathers;  // null for a shuffle
  alignas(16) char mine[16], found[16];
};

// The elements of a tensor or a segment of the library: [begin, end).
struct Range {
  uintptr_t begin, end;
  bool writable;
  Epoch birth;  // since when its content is undefined until written; 0: it came with values

  bool holds(uintptr_t first, uintptr_t last) const { return begin <= first && last <= end; }
};

struct Counts {
  int64_t launches, blocks, threads, accesses, switches, reports;
};

struct Device {
  bool running = false, aborted = false;
  bool checking = false;  // an access; what the check itself touches is not the kernel's
  Kernel kernel{};
  Epoch epoch = 1, launch_start = 0, block_start = 0;
  bool block_acquired = false;  // an atomic of this block can have read another's
  std::vector<Fiber> fibers;
  int threads = 0, now = -1;
  Range static_shared{}, dynamic_shared{};
  int64_t sampled_blocks = 0;  // run the first and last of a launch only; 0 for all
  bool capturing = false;      // what ops are told of their stream
  Counts counts{};

  Fiber& fiber() { return fibers[now]; }
  bool is_shared(uintptr_t first, uintptr_t last) const {
    return static_shared.holds(first, last) || dynamic_shared.holds(first, last);
  }
};
extern Device device;

// report.cpp
std::string place_of(const void* pc);
inline std::string place_of(Site site) { return site.file + (":" + std::to_string(site.line)); }
void report(const std::string& what, const std::string& place);
[[noreturn]] void stop(const std::string& what, const std::string& place);  // the running launch
void throw_reports(const std::string& kernel);

// fibers.cpp
void prepare_stacks();
bool on_own_stack(uintptr_t address);
void run_block();
void set_order(int64_t seed);
std::vector<unsigned> order_of(unsigned blocks);
[[noreturn]] void leave();  // the running thread, for good

// shadow.cpp
void access(const void* address, size_t size, bool writes, bool atomic, const void* pc);
void begin_races();
void remember(size_t touched_pages);
void begin_block();

// memory.cpp
std::vector<Range> tensor_ranges();
void find_segments(const void* code);
const Range* segment_of(uintptr_t first, uintptr_t last);
void forget_births();
int64_t living_tensors();

}  // namespace emulator
