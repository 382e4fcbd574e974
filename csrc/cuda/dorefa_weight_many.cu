#include "../formulas/dorefa.h"

#include "../ops.h"
#include "many.cuh"

namespace daqakd::cuda {
namespace {

// A tensor's partials of an earlier launch, one per block; every block that needs them adds them.
struct BlockPartials {
  __device__ double sum(int64_t k) const {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < blocks; i += kThreads) sum += partials[k * blocks + i];
    sum = block_sum<kThreads>(sum);
    __syncthreads();
    return sum;
  }
  __device__ float largest() const {
    unsigned largest = 0;
    for (int64_t i = threadIdx.x; i < blocks; i += kThreads)
      largest = max(largest, __float_as_uint(partials[i]));
    return __uint_as_float(block_max<kThreads>(largest));
  }

  const float* partials;  // [sums, blocks]
  int64_t blocks, numel;
};

// Tensors of 1 bit and of more go in one launch, so that the ops here do both.
struct AnyWeight {
  // from max|tanh(w)|, at 1 bit from mean|w|
  __device__ DoReFaWeightRange<float> prepare(int64_t) const {
    const float all =
        bits == 1 ? float(earlier.sum(0) / double(earlier.numel)) : tanh_of(earlier.largest());
    return {all, bits};
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
  static constexpr int kSums = 2;
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

// At 1 bit tie_gradient is the mean gradient that every weight gets.
struct AnyWeightBackward : DoReFaWeightBackward<float> {
  __device__ Prepared prepare(int64_t) const {
    const float all = *maximum;
    return {Divisor<float>(all), earlier.partials ? tie_gradient(all) : 0.0f};
  }
  __device__ float tie_gradient(float all) const {
    const double sum = earlier.sum(0);
    if (bits == 1) return float(sum / double(earlier.numel));
    return -float(sum) / (all * all) / float(earlier.sum(1));
  }
  __device__ Contribution<float, 0> gradient(float g, float w, const Prepared& all) const {
    if (bits == 1) return DoReFaBinaryBackward<float>().gradient(g, w, all.tie_gradient);
    return DoReFaWeightBackward::gradient(g, w, all);
  }

  const float* maximum;   // []
  BlockPartials earlier;  // no partials when detached
  int64_t bits;
};

// The largest |w| as bits, which are ordered like |w|, with NaN above everything; at 1 bit sum|w|.
struct Magnitude {
  int64_t bits;
};

template <class T, int V>
__device__ __forceinline__ void magnitude_segment(
    const TensorTask<Magnitude>& task, int64_t block) {
  const Segment segment(task.shape, block);
  const Fragment<T, V> w =
      load_fragment<V>(static_cast<const T*>(task.x) + segment.at, segment.left);
  unsigned largest = 0;
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kFragment; ++i) {
    if (i >= segment.left) continue;
    const float size = std::fabs(load(w[i]));
    largest = max(largest, __float_as_uint(size));
    sum += size;
  }
  largest = block_max<kThreads>(largest);
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) task.partials[block] = task.op.bits == 1 ? sum : __uint_as_float(largest);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    magnitude_many_kernel(const __grid_constant__ TaskTable<Magnitude> table) {
  const int m = find_task(table, blockIdx.x), block = blockIdx.x - table.first[m];
  if (table.task[m].vectorize)
    magnitude_segment<T, kVector<T>>(table.task[m], block);
  else
    magnitude_segment<T, 1>(table.task[m], block);
}

template <class T>
Partials magnitudes(const Launch& launch, const Tensors& w, const Integers& bits) {
  const auto op = [&](size_t i) { return TensorOp<Magnitude>{{bits[i]}, 1}; };
  Partials partials = partials_of<1>(w, op);
  const auto fill = [&](TensorTask<Magnitude>& task, size_t i) {
    task = make_task<T, Magnitude>(w[i], nullptr, nullptr, op(i));
    task.partials = partials.of(i);
    return blocks_of(task);
  };
  launch_tables<TaskTable<Magnitude>>(w.size(), fill, [&](const auto& table, int64_t blocks) {
    launch(magnitude_many_kernel<T>, blocks, kThreads, table);
  });
  return partials;
}

BlockPartials block_partials_of(const Partials& partials, size_t i) {
  const RowShape& shape = partials.shape[i];
  return {partials.of(i), shape.segments(), std::max<int64_t>(1, shape.inner)};
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
