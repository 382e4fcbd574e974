#include "../formulas/dorefa.h"

#include "../ops.h"
#include "elementwise.cuh"

namespace daqakd::cuda {
namespace {

struct DeviceWeightBackward : DoReFaWeightBackward<float> {
  __device__ Prepared prepare(int64_t) const {
    const float all = *maximum;
    return {Divisor<float>(all), sums ? -sums[0] / (all * all) / sums[1] : 0.0f};
  }

  const float* maximum;  // []
  const float* sums;     // [2]: of DoReFaMaximumGradient; null when detached
};

struct DeviceBinaryBackward : DoReFaBinaryBackward<float> {
  __device__ float prepare(int64_t) const { return mean_gradient ? *mean_gradient : 0.0f; }

  const float* mean_gradient;  // [], null when detached
};

// Bits of |w| are ordered like |w|, with NaN above everything.
template <class T, int V>
__global__ void __launch_bounds__(kThreads) largest_kernel(
    const T* __restrict__ w,          // [numel]
    unsigned* __restrict__ partials,  // [blocks]
    int64_t numel) {
  unsigned largest = 0;
  const int64_t base = int64_t(blockIdx.x) * kTile + threadIdx.x * kFragment;
#pragma unroll
  for (int k = 0; k < kTile / kBlockElements; ++k) {
    const int64_t at = base + k * kBlockElements;
    if (at >= numel) break;
    const Fragment<T, V> fragment = load_fragment<V>(w + at, numel - at);
#pragma unroll
    for (int i = 0; i < kFragment; ++i)
      largest = max(largest, __float_as_uint(load(fragment[i])) & 0x7fffffffu);
  }
  largest = block_max<kThreads>(largest);
  if (threadIdx.x == 0) partials[blockIdx.x] = largest;
}

// max|tanh(w)| = tanh(max|w|): no second tanh, and the largest weight equals it exactly.
__global__ void __launch_bounds__(kReduceThreads) maximum_kernel(
    const unsigned* __restrict__ partials,  // [blocks]
    int64_t blocks, float* __restrict__ out) {
  unsigned largest = 0;
  for (int64_t i = threadIdx.x; i < blocks; i += kReduceThreads)
    largest = max(largest, partials[i]);
  largest = block_max<kReduceThreads>(largest);
  if (threadIdx.x == 0) *out = tanh_of(__uint_as_float(largest));
}

template <class T>
void largest_tanh(const Launch& launch, const Tensor& w, float* out) {
  const T* from = data<T>(w);
  const int64_t blocks = ceil_div(w.numel(), kTile);
  const Tensor partials = scratch(w, blocks);
  unsigned* found = mutable_data<unsigned>(partials);
  const auto kernel = aligned({from}) ? largest_kernel<T, kVector<T>> : largest_kernel<T, 1>;
  launch(kernel, blocks, kThreads, from, found, w.numel());
  launch(maximum_kernel, 1, kReduceThreads, found, blocks, out);
}

template <class T>
void signed_mean(const Launch& launch, const Tensor& grad, const Tensor& w, float* out) {
  flat_backward<T>(
      launch, w, data<T>(grad), data<T>(w), static_cast<T*>(nullptr), {out},
      float(1.0 / double(w.numel())), DoReFaSignedSum<float>{});
}

}  // namespace

tuple<Tensor, Tensor> dorefa_activation_forward(const Tensor& x, int64_t bits, bool is_signed) {
  check_dorefa_activation(x, bits, is_signed);
  const Launch launch(x);
  const Tensor input = dense(x);
  Tensor y = empty_as(input), mask = empty_mask(x, 1);
  if (x.numel() == 0) return {y, mask};
  const DoReFaActivation<float> op(DoReFaRange<float>(bits, is_signed));
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    map<T>(
        launch, view_of(input, std::nullopt), data<T>(input), mutable_data<T>(y),
        mutable_data<uint8_t>(mask), op);
  });
  return {y, mask};
}

Tensor dorefa_activation_backward(const Tensor& grad, const Tensor& mask) {
  check_dorefa_activation_backward(grad, mask);
  const Launch launch(grad);
  const Tensor g = dense(grad);
  Tensor dx = empty_as(g);
  if (grad.numel() == 0) return dx;
  by_dtype(grad, [&](auto element) {
    using T = decltype(element);
    flat_backward<T>(
        launch, g, data<T>(g), data<uint8_t>(mask), mutable_data<T>(dx), {}, 1.0f,
        DoReFaActivationBackward<float>{});
  });
  return dx;
}

tuple<Tensor, Tensor> dorefa_weight_forward(const Tensor& w, int64_t bits) {
  check_dorefa_weight(w, bits);
  const Launch launch(w);
  const Tensor input = dense(w);
  Tensor y = empty_as(input), scale = empty_scalar(w, ScalarType::Float);
  if (w.numel() == 0) return {y, torch::stable::zero_(scale)};
  float* all = mutable_data<float>(scale);
  by_dtype(w, [&](auto element) {
    using T = decltype(element);
    const View view = view_of(input, std::nullopt);
    const T* from = data<T>(input);
    T* to = mutable_data<T>(y);
    if (bits == 1) {
      signed_mean<T>(launch, input, input, all);
      map<T>(launch, view, from, to, nullptr, PerTensor<DoReFaBinary<float>>{{all}, {}});
    } else {
      largest_tanh<T>(launch, input, all);
      map<T>(launch, view, from, to, nullptr, PerTensor<DoReFaWeight<float>>{{all}, {bits}});
    }
  });
  return {y, scale};
}

Tensor dorefa_weight_backward(
    const Tensor& grad, const Tensor& w, const Tensor& maximum, int64_t bits, bool detach_max) {
  check_dorefa_weight_backward(grad, w, maximum, bits);
  const Launch launch(w);
  const Tensor input = dense(w), g = in_strides_of(grad, input);
  const Tensor scale = as_parameter(maximum, ScalarType::Float), sums = scratch(w, 2);
  Tensor dw = empty_as(input);
  if (w.numel() == 0) return dw;
  float* found = detach_max ? nullptr : mutable_data<float>(sums);
  by_dtype(w, [&](auto element) {
    using T = decltype(element);
    const T *gradient = data<T>(g), *from = data<T>(input);
    T* to = mutable_data<T>(dw);
    const float* all = data<float>(scale);
    if (bits == 1) {
      if (found) signed_mean<T>(launch, g, input, found);
      return flat_backward<T>(
          launch, input, gradient, from, to, {}, 1.0f, DeviceBinaryBackward{{}, found});
    }
    if (found)
      flat_backward<T>(
          launch, input, gradient, from, static_cast<T*>(nullptr), {found, found + 1}, 1.0f,
          PerTensor<DoReFaMaximumGradient<float>>{{all}, {}});
    flat_backward<T>(
        launch, input, gradient, from, to, {}, 1.0f, DeviceWeightBackward{{}, all, found});
  });
  return dw;
}

}  // namespace daqakd::cuda
