#include "../ops.h"
#include "dorefa.cuh"
#include "many.cuh"

namespace daqakd::cuda {
namespace {

// Tensors of 1 bit and of more go in one launch, so that the ops here do both.
struct AnyWeight {
  __device__ DoReFaWeightRange<float> prepare(int64_t) const {
    return {earlier.magnitude(bits), bits};
  }
  __device__ void publish(const DoReFaWeightRange<float>& all) const { *maximum = all.maximum; }
  __device__ float value(float w, const DoReFaWeightRange<float>& all) const {
    return bits == 1 ? dorefa_binary(w, all.maximum) : dorefa_weight(w, all);
  }

  BlockPartials earlier;
  float* maximum;  // []
  int64_t bits;
};

// sum(g * tanh(w)) and how many weights are the largest; at 1 bit sum(g * sign(w)).
struct AnyMaximumGradient {
  static constexpr int kBits = 0, kSums = 2;
  static constexpr bool kHasDx = false;

  __device__ float prepare(int64_t) const { return *maximum; }
  __device__ Contribution<float, 2> gradient(float g, float w, float all) const {
    if (bits == 1) return {0.0f, {dorefa_binary(w, g), 0.0f}};
    const float t = tanh_of(w);
    return {0.0f, {g * t, std::fabs(t) == all ? 1.0f : 0.0f}};
  }

  const float* maximum;  // []
  int64_t bits;
};

struct AnyWeightBackward : DoReFaWeightBackward<float> {
  __device__ Prepared prepare(int64_t) const {
    const float all = *maximum;
    return {Divisor<float>(all), earlier.partials ? earlier.tie_gradient(all, bits) : 0.0f};
  }
  __device__ Contribution<float, 0> gradient(float g, float w, const Prepared& all) const {
    if (bits == 1) return DoReFaBinaryBackward<float>().gradient(g, w, all.tie_gradient);
    return DoReFaWeightBackward::gradient(g, w, all);
  }

  const float* maximum;   // []
  BlockPartials earlier;  // no partials when detached
  int64_t bits;
};

struct Magnitude {
  int64_t bits;
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    magnitude_many_kernel(const __grid_constant__ TaskTable<Magnitude> table) {
  const int m = find_task(table, blockIdx.x), block = blockIdx.x - table.first[m];
  const TensorTask<Magnitude>& task = table.task[m];
  magnitude_tile(
      static_cast<const T*>(task.x), Tile<false>(task.runs(), block), task.aligned, task.op.bits,
      task.partials + block);
}

template <class T>
Partials magnitudes(const Launch& launch, const Tensors& w, const Integers& bits) {
  const auto op = [&](size_t i) { return TensorOp<Magnitude>{{bits[i]}, 1}; };
  Partials partials = partials_of<1>(w, op);
  const auto fill = [&](TensorTask<Magnitude>& task, size_t i) {
    task = make_task<T, Magnitude>(w[i], nullptr, nullptr, op(i));
    task.partials = partials.of(i);
    return task.runs().across();
  };
  launch_tables<TaskTable<Magnitude>>(w.size(), fill, [&](const auto& table, int64_t blocks) {
    launch(magnitude_many_kernel<T>, blocks, kThreads, table);
  });
  return partials;
}

BlockPartials block_partials_of(const Partials& partials, size_t i) {
  const Runs& shape = partials.shape[i];
  return {partials.of(i), shape.segments, std::max<int64_t>(1, shape.inner)};
}

}  // namespace

tuple<Tensors, Tensor> dorefa_weight_many_forward(Tensors w, Integers bits) {
  const int64_t count = check_dorefa_weight_many(w, bits);
  const Launch launch(w[0]);
  const Tensor maximum = empty(w[0], &count, 1, ScalarType::Float);
  Tensors y;
  for (size_t i = 0; i < w.size(); ++i) {
    w[i] = dense(w[i]);
    y.push_back(empty_as(w[i]));
  }
  by_dtype(w[0], [&](auto element) {
    using T = decltype(element);
    const Partials partials = magnitudes<T>(launch, w, bits);
    map_many<T, AnyWeight>(launch, w, y, [&](size_t i) {
      return TensorOp<AnyWeight>{
          {block_partials_of(partials, i), mutable_data<float>(maximum) + i, bits[i]}, 1};
    });
  });
  return {y, maximum};
}

Tensors dorefa_weight_many_backward(
    Tensors grad, Tensors w, const Tensor& maximum, Integers bits, bool detach_max) {
  check_dorefa_weight_many_backward(grad, w, maximum, bits);
  const Launch launch(w[0]);
  const Tensor all = as_parameter(maximum, ScalarType::Float);
  Tensors dw;
  for (size_t i = 0; i < w.size(); ++i) {
    w[i] = dense(w[i]);
    grad[i] = in_strides_of(grad[i], w[i]);
    dw.push_back(empty_as(w[i]));
  }
  by_dtype(w[0], [&](auto element) {
    using T = decltype(element);
    optional<Partials> sums;
    if (!detach_max)
      sums = backward_many<T, AnyMaximumGradient>(launch, grad, w, dw, [&](size_t i) {
        return TensorOp<AnyMaximumGradient>{{data<float>(all) + i, bits[i]}, 1};
      });
    backward_many<T, AnyWeightBackward>(launch, grad, w, dw, [&](size_t i) {
      const BlockPartials earlier =
          sums ? block_partials_of(*sums, i) : BlockPartials{nullptr, 0, 0};
      return TensorOp<AnyWeightBackward>{{{}, data<float>(all) + i, earlier, bits[i]}, 1};
    });
  });
  return dw;
}

}  // namespace daqakd::cuda
