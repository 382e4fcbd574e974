#include "../ops.h"
#include "dorefa.cuh"

namespace daqakd::cuda {
namespace {

struct DeviceWeightBackward : DoReFaWeightBackward<float> {
  __device__ Prepared prepare(int64_t) const {
    return {Divisor<float>(*maximum), tie_gradient ? *tie_gradient : 0.0f};
  }

  const float *maximum, *tie_gradient;  // [], the second null when detached
};

struct DeviceBinaryBackward : DoReFaBinaryBackward<float> {
  __device__ float prepare(int64_t) const { return mean_gradient ? *mean_gradient : 0.0f; }

  const float* mean_gradient;  // [], null when detached
};

// sum(g * tanh(w)) and how many weights are the largest, for what each of those gets.
struct TieGradient : PerTensor<DoReFaMaximumGradient<float>> {
  __device__ float finish(const double (&sums)[2]) const {
    return dorefa_tie_gradient(sums[0], sums[1], *parameter);
  }
};

// At 1 bit: the mean gradient, which every weight gets.
struct MeanGradient : DoReFaSignedSum<float> {
  __device__ float finish(const double (&sums)[1]) const { return float(sums[0] / double(numel)); }

  int64_t numel;
};

// A block leaves the magnitude of its tile, the last one the tensor's.
template <class T>
__global__ void __launch_bounds__(kThreads) magnitude_kernel(
    const T* __restrict__ w,  // [numel]
    float* partials,          // [blocks]
    Runs plan, bool aligned, int64_t bits, Counter counter,
    float* __restrict__ out) {  // []
  magnitude_tile(w, Tile<false>(plan, blockIdx.x), aligned, bits, partials + blockIdx.x);
  if (!counter.is_last()) return;
  const BlockPartials all{partials, gridDim.x, plan.inner};
  const float magnitude = all.magnitude(bits);
  if (threadIdx.x == 0) *out = magnitude;
}

template <class T>
void magnitude(const Launch& launch, const Tensor& w, int64_t bits, float* out) {
  const T* from = data<T>(w);
  const Runs plan(1, 1, w.numel());
  const Tensor partials = scratch(w, plan.blocks());
  const LaunchCounter counter(launch, w, plan.blocks() > 1);
  launch(
      magnitude_kernel<T>, plan.blocks(), kThreads, from, mutable_data<float>(partials), plan,
      aligned({from}), bits, counter.get(), out);
}

// Into `out`: what each of the largest weights, at 1 bit every weight, gets through the maximum.
template <class T>
void tie_gradient(
    const Launch& launch, const Tensor& grad, const Tensor& w, const float* maximum, int64_t bits,
    float* out) {
  const Gradients<T> to{data<T>(grad), data<T>(w), nullptr};
  if (bits == 1)
    flat_backward(launch, w, to, {out}, MeanGradient{{}, w.numel()});
  else
    flat_backward(launch, w, to, {out}, TieGradient{{{maximum}, {}}});
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
    const Gradients<T> to{data<T>(g), data<uint8_t>(mask), mutable_data<T>(dx)};
    flat_backward(launch, g, to, {}, DoReFaActivationBackward<float>{});
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
    magnitude<T>(launch, input, bits, all);
    if (bits == 1)
      map<T>(launch, view, from, to, nullptr, PerTensor<DoReFaBinary<float>>{{all}, {}});
    else
      map<T>(launch, view, from, to, nullptr, PerTensor<DoReFaWeight<float>>{{all}, {bits}});
  });
  return {y, scale};
}

Tensor dorefa_weight_backward(
    const Tensor& grad, const Tensor& w, const Tensor& maximum, int64_t bits, bool detach_max) {
  check_dorefa_weight_backward(grad, w, maximum, bits);
  const Launch launch(w);
  const Tensor input = dense(w), g = in_strides_of(grad, input);
  const Tensor scale = as_parameter(maximum, ScalarType::Float), memory = scratch(w, 1);
  Tensor dw = empty_as(input);
  if (w.numel() == 0) return dw;
  const float* all = data<float>(scale);
  float* tie = detach_max ? nullptr : mutable_data<float>(memory);
  by_dtype(w, [&](auto element) {
    using T = decltype(element);
    const Gradients<T> to{data<T>(g), data<T>(input), mutable_data<T>(dw)};
    if (tie) tie_gradient<T>(launch, g, input, all, bits, tie);
    if (bits == 1)
      flat_backward(launch, input, to, {}, DeviceBinaryBackward{{}, tie});
    else
      flat_backward(launch, input, to, {}, DeviceWeightBackward{{}, all, tie});
  });
  return dw;
}

}  // namespace daqakd::cuda
