#include <torch/csrc/stable/library.h>

#include <string>

#include "faults.cuh"
#include "features.cuh"

namespace probes {
namespace {

using Probe = void (*)(float*, int64_t);
#define PROBE(name) {#name, name}
const struct {
  const char* name;
  Probe kernel;
} kProbes[] = {
    PROBE(race),
    PROBE(race_after_read),
    PROBE(race_within_a_warp),
    PROBE(race_between_blocks),
    PROBE(missing_fence),
    PROBE(no_fence_after),
    PROBE(write_by_another_thread),
    PROBE(beyond_the_end),
    PROBE(before_the_start),
    PROBE(misaligned),
    PROBE(misaligned_store),
    PROBE(undefined_shared),
    PROBE(some_miss_the_barrier),
    PROBE(two_barriers),
    PROBE(lane_is_gone),
    PROBE(lane_is_elsewhere),
    PROBE(outside_its_mask),
    PROBE(two_masks),
    PROBE(traps),
    PROBE(narrow_product),
    PROBE(wide_shift),
    PROBE(beyond_an_array),
    PROBE(shuffles),
    PROBE(votes),
    PROBE(last_block),
    PROBE(atomics),
    PROBE(depends_on_order),
};

std::vector<Tensor> kept;

}  // namespace

// Runs the kernel `name` on `x`, float32 [n], in place; `size` is what a launch may vary.
Tensor run(Tensor x, std::string name, int64_t size) {
  const daqakd::cuda::Launch launch(x);
  if (name == "through_const")
    launch(through_const, kBlocks, kThreads, daqakd::data<float>(x), x.numel());
  float* data = daqakd::mutable_data<float>(x);
  for (const auto& probe : kProbes)
    if (name == probe.name) launch(probe.kernel, kBlocks, kThreads, data, x.numel());
  if (name == "undefined_scratch")
    launch(
        undefined_scratch, 1, kThreads, daqakd::mutable_data<float>(daqakd::scratch(x, 64)),
        int64_t(64));
  if (name == "two_launches") {
    const Tensor between = daqakd::scratch(x, kThreads);
    launch(leaves_ones, 1, kThreads, daqakd::mutable_data<unsigned>(between), int64_t(kThreads));
    launch(reads_ones, 1, kThreads, daqakd::data<unsigned>(between), data);
  }
  if (name == "dynamic_shared")
    launch.sharing(dynamic_shared, kBlocks, kThreads, size, data, x.numel());
  if (name == "block_of") launch(shuffles, 1, int(size), data, x.numel());
  if (name == "many_parameters") launch(many_parameters, 1, 1, data, Large{});
  if (name == "leak") kept.push_back(daqakd::scratch(x, 8));
  return x;
}

}  // namespace probes

STABLE_TORCH_LIBRARY(daqakd_probes, m) { m.def("run(Tensor(a!) x, str name, int size) -> Tensor"); }

STABLE_TORCH_LIBRARY_IMPL(daqakd_probes, CPU, m) { m.impl("run", TORCH_BOX(&probes::run)); }
