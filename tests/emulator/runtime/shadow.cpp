#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <memory>
#include <unordered_map>

#include "state.h"

// Every access of a kernel is checked here: place, alignment, direction, content, and races by who
// touched each byte last and when.
namespace emulator {

char* dynamic_shared = nullptr;

namespace {

constexpr uint16_t kAtomic = 0x8000, kThread = 0x7fff, kSeveral = 0x7fff;
constexpr size_t kPage = 4096;

struct Cell {  // of one byte: its last writer and reader
  Epoch written, read;
  uint16_t writer, reader;
};
using Page = std::array<Cell, kPage>;

// What a block had written when it published it: all before `since`, and what `thread` wrote.
struct Release {
  Epoch until, since;
  int thread;
};

size_t most_pages = 0;
std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages;
std::array<std::pair<uintptr_t, Page*>, 256> recent;
std::vector<Range> ranges;          // of this launch, by their begin
std::map<Epoch, Release> releases;  // by the start of the block

Cell& cell_of(uintptr_t address) {
  const uintptr_t number = address / kPage;
  auto& [known, page] = recent[number % recent.size()];
  if (page == nullptr || known != number) {
    auto& found = pages[number];
    if (!found) found = std::make_unique<Page>();
    known = number, page = found.get();
  }
  return (*page)[address % kPage];
}

const Range* range_of(uintptr_t first, uintptr_t last) {
  auto after = std::upper_bound(
      ranges.begin(), ranges.end(), first,
      [](uintptr_t address, const Range& range) { return address < range.begin; });
  while (after != ranges.begin())
    if ((--after)->holds(first, last)) return &*after;
  return segment_of(first, last);
}

// Whether the write `at` by `who` of an earlier block comes before what this thread does.
bool is_published(Epoch at, int who) {
  if (!device.fiber().acquired) return false;
  auto found = releases.upper_bound(at);
  if (found == releases.begin()) return false;
  const Release& release = (--found)->second;
  return at < release.since || (at <= release.until && who == release.thread);
}

struct Access {
  uintptr_t first;
  size_t size;
  bool writes, atomic, shared;
  const void* pc;

  std::string describe(const std::string& what) const {
    return what + ": " + (writes ? "write" : "read") + " of " + std::to_string(size) + " bytes";
  }
  void wrong(const char* what) const { report(describe(what), place_of(pc)); }
  [[noreturn]] void fatal(const char* what) const { stop(describe(what), place_of(pc)); }

  bool is_poisoned() const {
    const auto* bytes = reinterpret_cast<const uint8_t*>(first);
    return std::all_of(bytes, bytes + size, [](uint8_t byte) { return byte == 0xff; });
  }

  // With what `who` did at `at`, one of the two writing.
  bool clashes(Epoch at, uint16_t who) const {
    if (at < device.launch_start || (atomic && who & kAtomic)) return false;
    const int other = who & kThread;
    if (at < device.block_start) return !shared && !is_published(at, other);
    const Fiber& own = device.fiber();
    if (other == device.now || at < own.block_since) return false;
    return other / kWarp != device.now / kWarp || at >= own.warp_since;
  }

  // False after a report: one for all bytes is enough.
  bool check(const Cell& cell, Epoch birth) const {
    if (!writes && birth && cell.written < birth && (shared || is_poisoned())) {
      wrong(shared ? "shared memory read before it was written" : "read before it was written");
      return false;
    }
    const bool wrote = clashes(cell.written, cell.writer);
    if (!wrote && !(writes && clashes(cell.read, cell.reader))) return true;
    const Epoch other = wrote ? cell.written : cell.read;
    wrong(other < device.block_start ? "race between blocks" : "race");
    return false;
  }

  void note(Cell& cell) const {
    if (writes) {
      cell.written = device.epoch;
      cell.writer = uint16_t(device.now) | (atomic ? kAtomic : uint16_t(0));
      return;
    }
    const bool several = cell.read >= device.fiber().block_since && cell.reader != device.now;
    cell.reader = several ? kSeveral : uint16_t(device.now);
    cell.read = device.epoch;
  }
};

// Since when the bytes are undefined until written; stops the launch where no byte is its own.
Epoch birth_of(const Access& one) {
  if (one.shared) return device.block_start;
  const Range* range = range_of(one.first, one.first + one.size);
  if (!range) one.fatal("out of bounds");
  if (one.writes && !range->writable) one.wrong("write through a const pointer");
  if (one.writes && !one.atomic) device.fiber().released = false;
  return device.sampled_blocks ? 0 : range->birth;
}

bool is_private(uintptr_t first, size_t size, bool writes) {
  const uintptr_t given = uintptr_t(device.kernel.parameters);
  const bool parameter = first >= given && first + size <= given + device.kernel.parameter_bytes;
  return on_own_stack(first) || first - uintptr_t(&place) < sizeof place ||
         first == uintptr_t(&dynamic_shared) || (parameter && !writes);
}

}  // namespace

void access(const void* address, size_t size, bool writes, bool atomic, const void* pc) {
  const uintptr_t first = uintptr_t(address);
  if (device.checking || is_private(first, size, writes)) return;
  device.checking = true;
  ++device.counts.accesses;
  const Access one{first, size, writes, atomic, device.is_shared(first, first + size), pc};
  if (std::has_single_bit(size) && first % size != 0) one.fatal("misaligned");
  const Epoch birth = birth_of(one);
  for (size_t i = 0; i < size; ++i) {
    Cell& cell = cell_of(first + i);
    if (!one.check(cell, birth)) break;
    one.note(cell);
  }
  device.checking = false;
}

void begin_races() {
  if (pages.size() > most_pages) {  // what was written before then counts as written
    pages.clear();
    recent = {};
    forget_births();
  }
  ranges = tensor_ranges();
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) {
    return std::pair(a.begin, a.writable) < std::pair(b.begin, b.writable);
  });
  releases.clear();
  device.launch_start = ++device.epoch;
}

void remember(size_t touched_pages) { most_pages = touched_pages; }

void begin_block() {
  device.block_start = ++device.epoch;
  device.block_acquired = device.checking = false;
}

void fence() {
  device.fiber().released = true;
  device.fiber().acquired = device.block_acquired;
}

void vector_access(const void* address, size_t size, bool writes, const void* pc) {
  if (device.running) access(address, size, writes, false, pc);
}

void atomic_access(const void* address, size_t size, const void* pc) {
  access(address, size, true, true, pc);
  const uintptr_t first = uintptr_t(address);
  if (device.is_shared(first, first + size)) return;
  device.block_acquired = true;
  const Fiber& own = device.fiber();
  if (own.released) releases[device.block_start] = {device.epoch, own.block_since, device.now};
}

}  // namespace emulator
