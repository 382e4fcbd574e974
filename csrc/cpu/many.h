#pragma once

#include <vector>

#include "../common/check.h"
#include "partition.h"

namespace daqakd::cpu {

constexpr int64_t kLarge = 8 * kGrain;  // elements of a tensor that fill the threads by itself

// body(i) for every tensor: small ones in groups worth a thread each, large ones one by one, on
// all threads. What body does in parallel runs serially within a group, with the same bits.
template <class F>
void each_tensor(const Tensors& tensors, const F& body) {
  std::vector<std::vector<int64_t>> groups;
  int64_t open = 0;  // elements of the last group
  for (size_t i = 0; i < tensors.size(); ++i) {
    const int64_t numel = tensors[i].numel();
    if (numel >= kLarge) {
      body(int64_t(i));
      continue;
    }
    if (groups.empty() || open >= kGrain) groups.emplace_back(), open = 0;
    groups.back().push_back(int64_t(i));
    open += numel;
  }
  parallel(int64_t(groups.size()), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group)
      for (const int64_t i : groups[group]) body(i);
  });
}

}  // namespace daqakd::cpu
