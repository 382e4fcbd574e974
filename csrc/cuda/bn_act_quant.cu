#include "../ops.h"
#include "bn_forward.cuh"
#include "bn_quantizers.cuh"
#include "bn_statistics.cuh"

namespace daqakd::cuda {
namespace {

// The moments of every channel, and what `maker` makes of them.
template <class T>
void batch_norms(const Launch& launch, const Tensor& x, const NormMaker& maker) {
  const View view = view_of(x, 1);
  const T* from = data<T>(x);
  const auto go = [&](const auto& kernel, const auto& plan) {
    const Reduction shape = plan.reduction();
    const bool whole = shape.terms() == 1;  // then a tile is all of its channel
    const Tensor memory = scratch(x, whole ? 1 : 4 * shape.down * shape.across);
    float* partials = whole ? nullptr : mutable_data<float>(memory);
    launch(kernel, plan.blocks(), kThreads, from, partials, plan, aligned({from}), maker);
    if (!whole) launch(bn_merge_kernel, view.channels, kReduceThreads, partials, shape, maker);
  };
  if (has_columns(view)) return go(bn_moments_columns<T>, Columns<kVector<T>>(view));
  const bool whole = has_whole_packs<T>(view.outer * view.channels, view.inner);
  go(whole ? bn_moments_runs<T, kVector<T>> : bn_moments_runs<T, 1>, Runs(view));
}

template <class T>
void normalize(
    const Launch& launch, const Tensor& x, ForwardTensors<T> all, const float* norms,
    Activation activation, const QuantizerParameters& parameters) {
  const View view = view_of(x, 1);
  const int64_t numel = view.numel(), stride = kThreads * kVector<T>;
  all.aligned = aligned({all.x, all.residual, all.y, all.activation});
  const ChannelTable table(norms, view, stride);
  const DeviceCodes codes = parameters.codes();
  parameters.by_method([&](const auto& q) {
    using Q = std::decay_t<decltype(q)>;
    auto kernel = bn_forward_kernel<T, Q, false>;
    if constexpr (!std::is_same_v<Q, DeviceNoQuantizer>)
      if (all.codes) kernel = bn_forward_kernel<T, Q, true>;
    launch(
        kernel, ceil_div(numel, kNormBatch * stride), kThreads, all, numel, table,
        ActivationRange<float>(activation), q, codes);
  });
}

float* update(const optional<Tensor>& running) {
  return running ? mutable_data<float>(*running) : nullptr;
}

}  // namespace

tuple<Tensor, Tensor, Tensor, Tensor> bn_act_quant_forward(
    const BNArguments& given, const RunningStatistics& running, bool with_activation,
    bool with_codes) {
  given.check();
  given.quantizer.check_codes(with_codes);
  running.check(given.x, given.training);
  const Launch launch(given.x);
  const Tensor x = dense(given.x);
  const int64_t channels = x.size(1), shape[2] = {2, channels}, none = 0;
  Tensor y = empty_as(x), statistics = empty(x, shape, 2, ScalarType::Float);
  Tensor activation = with_activation ? empty_as(x) : empty(x, &none, 1, x.scalar_type());
  const int slot = slot_bits(given.quantizer.bits);
  Tensor codes = with_codes ? empty_mask(x, slot) : empty(x, &none, 1, ScalarType::Byte);
  if (x.numel() == 0) return {y, activation, torch::stable::zero_(statistics), codes};
  const optional<Tensor> weight = as_floats(given.weight), bias = as_floats(given.bias);
  const optional<Tensor> momentum = as_floats(running.momentum_tensor);
  const optional<Tensor> residual = beside(given.residual, x);
  const Tensor norms = scratch(x, 3 * channels);
  const QuantizerParameters parameters(given.quantizer);
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    const NormMaker maker{
        address<float>(weight),
        address<float>(bias),
        update(running.mean),
        update(running.var),
        scalar_of(momentum, running.momentum),
        running.eps,
        double(x.numel()) / double(channels),
        channels,
        mutable_data<float>(statistics),
        mutable_data<float>(norms)};
    if (given.training)
      batch_norms<T>(launch, x, maker);
    else
      launch(bn_running_kernel, ceil_div(channels, kThreads), kThreads, maker);
    T* kept = with_activation ? mutable_data<T>(activation) : nullptr;
    // Threads that would share bytes of the codes leave them to a pass over y of its own.
    const bool in_pass = with_codes && has_whole_bytes<T>(slot);
    uint8_t* packed = in_pass ? mutable_data<uint8_t>(codes) : nullptr;
    normalize<T>(
        launch, x, {data<T>(x), address<T>(residual), mutable_data<T>(y), kept, packed, false},
        maker.norms, given.activation, parameters);
    if (with_codes && !in_pass) pack_codes(launch, y, codes, parameters.codes());
  });
  return {y, activation, statistics, codes};
}

}  // namespace daqakd::cuda
