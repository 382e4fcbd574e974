#include <sys/mman.h>

#include <cstring>
#include <numeric>
#include <stdexcept>

#include "state.h"

// The threads of a block as fibers. They give way at barriers and at the exchanges of a warp; who
// goes on is picked by the order: the first, the last, or a random one.
#if !defined(__x86_64__)
#error "emulator_switch is written for x86-64"
#endif

extern "C" void emulator_switch(void** save, void* load);
// The registers that a call keeps, then the stack.
asm(R"(
.text
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch, @function
emulator_switch:
  push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp
  ret
)");

namespace emulator {

Place place;

namespace {

constexpr size_t kStack = 128 * 1024;
constexpr int kSavedRegisters = 6;

char* stacks = nullptr;
void* scheduler = nullptr;
std::vector<int> ready;
int64_t seed = 0;
uint64_t random_state = 1;

uint64_t random64() {  // xorshift64
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  return random_state ^= random_state << 17;
}

void give_way(State state) {
  device.fiber().state = state;
  emulator_switch(&device.fiber().stack_pointer, scheduler);
}

void start_fiber() {
  device.kernel.body(device.kernel.function, device.kernel.parameters);
  leave();
}

void prepare_fiber(int i) {
  // entered as by a call: the stack pointer is 8 past a multiple of 16
  void** top = reinterpret_cast<void**>(stacks + (i + 1) * kStack) - 2;
  top[0] = reinterpret_cast<void*>(start_fiber);
  top[1] = nullptr;
  std::fill(top - kSavedRegisters, top, nullptr);
  device.fibers[i] = {};
  device.fibers[i].stack_pointer = top - kSavedRegisters;
  device.fibers[i].block_since = device.fibers[i].warp_since = device.epoch;
  ready.push_back(i);
}

int take_next() {
  const size_t k = seed == 0 ? 0 : seed == 1 ? ready.size() - 1 : random64() % ready.size();
  const int next = ready[k];
  if (seed == 0) {
    ready.erase(ready.begin());
  } else {
    ready[k] = ready.back();
    ready.pop_back();
  }
  return next;
}

void run_ready() {
  while (!ready.empty() && !device.aborted) {
    device.now = take_next();
    const unsigned n = device.now;
    const Index& size = place.block_size;
    place.thread = {n % size.x, n / size.x % size.y, n / (size.x * size.y)};
    ++device.counts.switches;
    emulator_switch(&scheduler, device.fiber().stack_pointer);
  }
}

bool same_site(Site a, Site b) { return a.line == b.line && strcmp(a.file, b.file) == 0; }

// Nobody can go on: all done, or all at one barrier.
bool finish_or_meet() {
  int done = 0;
  const Fiber* waiting = nullptr;
  for (int i = 0; i < device.threads; ++i) {
    const Fiber& fiber = device.fibers[i];
    if (fiber.state == State::at_exchange) {
      report("an exchange that not all lanes of its mask reach", place_of(fiber.site));
      return device.aborted = true;
    }
    done += fiber.state == State::done;
    if (fiber.state != State::at_barrier) continue;
    if (waiting && !same_site(waiting->site, fiber.site))
      report("threads at different barriers, one", place_of(fiber.site));
    waiting = &fiber;
  }
  if (!waiting) return true;
  if (done > 0)
    report("a barrier that " + std::to_string(done) + " threads miss", place_of(waiting->site));
  return false;
}

void pass_barrier() {
  ++device.epoch;
  for (int i = 0; i < device.threads; ++i) {
    Fiber& fiber = device.fibers[i];
    if (fiber.state != State::at_barrier) continue;
    fiber.state = State::ready;
    fiber.block_since = fiber.warp_since = device.epoch;
    ready.push_back(i);
  }
}

// Whether all lanes of the mask wait at this site; lanes that cannot come are reported.
bool all_are_here(const Fiber& own, int first) {
  bool all = true;
  for (int l = 0; l < kWarp; ++l) {
    if (!(own.mask >> l & 1)) continue;
    if (first + l >= device.threads || device.fibers[first + l].state == State::done)
      stop("an exchange names a lane that is gone", place_of(own.site));
    const Fiber& other = device.fibers[first + l];
    if (other.state != State::at_exchange)
      all = false;
    else if (other.mask != own.mask || !same_site(other.site, own.site))
      stop(
          "lanes of a warp at different exchanges or masks, the other at " + place_of(other.site),
          place_of(own.site));
  }
  return all;
}

void deliver(Fiber& fiber, int first) {
  const bool exists = fiber.mask >> fiber.source & 1;
  if (exists)
    memcpy(fiber.found, device.fibers[first + fiber.source].mine, sizeof fiber.found);
  else
    memset(fiber.found, 0xff, sizeof fiber.found);
  for (int l = 0; fiber.gathers && l < kWarp; ++l)
    if (fiber.mask >> l & 1) memcpy(&fiber.gathers[l], device.fibers[first + l].mine, 8);
}

void release_warp(unsigned mask, int first, bool orders) {
  if (orders) ++device.epoch;
  for (int l = 0; l < kWarp; ++l) {
    if (!(mask >> l & 1)) continue;
    Fiber& fiber = device.fibers[first + l];
    deliver(fiber, first);
    fiber.state = State::ready;
    if (orders) fiber.warp_since = device.epoch;
    ready.push_back(first + l);
  }
}

// `own` says what it gives and wants.
void meet(Fiber& own) {
  const int first = device.now / kWarp * kWarp;
  if (!(own.mask >> (device.now - first) & 1))
    stop("a lane outside its own mask", place_of(own.site));
  own.state = State::at_exchange;
  if (!all_are_here(own, first)) return give_way(State::at_exchange);
  release_warp(own.mask, first, own.orders);
  give_way(State::ready);
}

}  // namespace

void prepare_stacks() {
  device.fibers.resize(kMostThreads);
  if (stacks) return;
  void* memory = mmap(
      nullptr, kMostThreads * kStack, PROT_READ | PROT_WRITE,
      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("emulator: no memory for stacks");
  stacks = static_cast<char*>(memory);
}

bool on_own_stack(uintptr_t address) {
  return address - uintptr_t(stacks + device.now * kStack) < kStack;
}

void leave() {
  give_way(State::done);
  __builtin_unreachable();
}

void run_block() {
  ready.clear();
  for (int i = 0; i < device.threads; ++i) prepare_fiber(i);
  while (true) {
    run_ready();
    if (device.aborted || finish_or_meet()) return;
    pass_barrier();
  }
}

void set_order(int64_t chosen) {
  seed = chosen;
  random_state = uint64_t(chosen) * 0x9e3779b97f4a7c15ull | 1;
}

std::vector<unsigned> order_of(unsigned blocks) {
  std::vector<unsigned> order(blocks);
  std::iota(order.begin(), order.end(), 0u);
  if (seed == 1) return {order.rbegin(), order.rend()};
  for (size_t i = order.size(); seed > 1 && i > 1; --i)
    std::swap(order[i - 1], order[random64() % i]);
  return order;
}

int lane() { return device.now % kWarp; }

void barrier(Site site) {
  device.fiber().site = site;
  give_way(State::at_barrier);
}

void trap(Site site) { stop("__trap()", place_of(site)); }

void shuffle(Site site, unsigned mask, int source, void* value, size_t size) {
  Fiber& own = device.fiber();
  own.site = site, own.mask = mask, own.source = source;
  own.orders = false, own.gathers = nullptr;
  memcpy(own.mine, value, size);
  meet(own);
  memcpy(value, own.found, size);
}

void gather(Site site, unsigned mask, uint64_t value, uint64_t (&values)[kWarp]) {
  Fiber& own = device.fiber();
  own.site = site, own.mask = mask, own.source = lane();
  own.orders = false, own.gathers = values;
  memcpy(own.mine, &value, sizeof value);
  meet(own);
}

void warp_barrier(Site site, unsigned mask) {
  Fiber& own = device.fiber();
  own.site = site, own.mask = mask, own.source = lane();
  own.orders = true, own.gathers = nullptr;
  meet(own);
}

}  // namespace emulator
