#include <cstring>
#include <memory>
#include <stdexcept>
#include <unordered_map>

#include "state.h"

// A launch: its limits, then its blocks one after another in the order that was asked for.
namespace emulator {

Device device;

namespace {

constexpr size_t kSharedWithoutAsking = 48 * 1024;
constexpr unsigned kShuffledBlocks = 1u << 20;  // larger grids run in order

std::unordered_map<void*, size_t> allowed_shared;

// The line after the first instruction's, for that one belongs to the caller's.
std::string name_of(const Kernel& kernel) {
  return place_of(static_cast<const char*>(kernel.function) + 1);
}

// The first limit of the hardware that a launch exceeds, or null.
const char* exceeded(const Kernel& kernel, Index grid, Index block, size_t shared_bytes) {
  const uint64_t threads = uint64_t(block.x) * block.y * block.z;
  if (grid.x < 1 || grid.x >= 1u << 31 || grid.y != 1 || grid.z != 1) return "grid";
  if (threads < 1 || threads > kMostThreads) return "threads of a block";
  if (kernel.parameter_bytes > kMostParameters) return "bytes of parameters";
  const auto asked = allowed_shared.find(kernel.function);
  const size_t most = asked == allowed_shared.end() ? kSharedWithoutAsking : asked->second;
  return shared_bytes > std::max(most, kSharedWithoutAsking) ? "bytes of shared memory" : nullptr;
}

// Undefined memory is all ones: NaN in every format.
void poison(const Range& range) {
  memset(reinterpret_cast<void*>(range.begin), 0xff, range.end - range.begin);
}

void run_one(unsigned block) {
  place.block = {block, 0, 0};
  begin_block();
  poison(device.static_shared);
  poison(device.dynamic_shared);
  device.running = true;
  run_block();
  device.running = false;
  ++device.counts.blocks;
  device.counts.threads += device.threads;
}

void run_blocks(unsigned blocks) {
  const auto sampled = unsigned(device.sampled_blocks);
  const bool in_order = sampled || blocks > kShuffledBlocks;
  const std::vector<unsigned> order = order_of(in_order ? 0 : blocks);
  for (unsigned b = 0; b < blocks && !device.aborted; ++b) {
    if (sampled && b == sampled && blocks > 2 * sampled) b = blocks - sampled;
    run_one(in_order ? b : order[b]);
  }
}

}  // namespace

bool allow_shared(void* function, size_t bytes) {
  allowed_shared[function] = bytes;
  return bytes <= kMostShared;
}

// A launch of which not all blocks run must not count them where the next one does.
bool is_capturing() { return device.capturing || device.sampled_blocks; }

void run(const Kernel& kernel, Index grid, Index block, size_t shared_bytes) {
  if (const char* what = exceeded(kernel, grid, block, shared_bytes))
    report(std::string("a launch beyond the limits: ") + what, name_of(kernel));
  throw_reports(name_of(kernel));
  prepare_stacks();
  find_segments(reinterpret_cast<const void*>(&emulator::run));
  const std::unique_ptr<char[]> memory(new char[shared_bytes + 48]);
  char* aligned = memory.get() + (32 - uintptr_t(memory.get()) % 32);
  dynamic_shared = aligned + 16;  // no more than what is promised
  device.dynamic_shared = {uintptr_t(dynamic_shared), uintptr_t(dynamic_shared) + shared_bytes};
  device.kernel = kernel;
  device.threads = int(block.x * block.y * block.z);
  device.aborted = false;
  place.grid = grid, place.block_size = block;
  begin_races();
  ++device.counts.launches;
  run_blocks(grid.x);
  throw_reports(name_of(kernel));
}

}  // namespace emulator
