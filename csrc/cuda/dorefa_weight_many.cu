#include "../formulas/dorefa.h"

#include "../ops.h"
#include "many.cuh"

namespace daqakd::cuda {
namespace {

// A tensor's partials of an earlier launch, one per block, folded by every block that needs them.
struct Found {
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

struct Weight {
  // from max|tanh(w)|, at 1 bit from mean|w|
  __device__ DoReFaWeights<float> prepare(int64_t) const {
    const float all = bits == 1 ? float(found.sum(0) / double(found.numel))
                                : tanh_of(found.largest());
    return {all, bits};
  }
  __device__ void publish(const DoReFaWeights<float>& all) const { *maximum = all.maximum; }
  __device__ float value(float w, const DoReFaWeights<float>& all) const {
    return bits == 1 ? dorefa_binary(w, all.maximum) : dorefa_weight(w, all);
  }

  Found found;
  float* maximum;  // []
  int64_t bits;
};

struct Gradient {
  Divisor<float> maximum;
  float share;
};

// sum(g * tanh(w)) and how many weights are the largest; at 1 bit sum(g * sign(w)).
struct MaximumGradient {
  static constexpr int kSums = 2;
  static constexpr bool kHasDx = false;

  __device__ float prepare(int64_t) const { return *maximum; }
  __device__ Shares<2> gradient(float g, float w, float all) const {
    if (bits == 1) return {0.0f, {dorefa_binary(w, g), 0.0f}};
    const float t = tanh_of(w);
    return {0.0f, {g * t, std::fabs(t) == all ? 1.0f : 0.0f}};
  }

  const float* maximum;  // []
  int64_t bits;
};

struct WeightBackward {
  static constexpr int kSums = 0;
  static constexpr bool kHasDx = true;

  __device__ Gradient prepare(int64_t) const {
    const float all = *maximum;
    return {Divisor<float>(all), found.partials ? share(all) : 0.0f};
  }
  __device__ float share(float all) const {
    const double sum = found.sum(0);
    if (bits == 1) return float(sum / double(found.numel));
    return -float(sum) / (all * all) / float(found.sum(1));
  }
  __device__ Shares<0> gradient(float g, float w, const Gradient& all) const {
    if (bits == 1) return {g + dorefa_binary(w, all.share), {}};
    return {dorefa_weight_gradient(g, w, all.maximum, all.share), {}};
  }

  const float* maximum;  // []
  Found found;           // no partials when detached
  int64_t bits;
};

// The largest |w| as bits, which are ordered like |w|, with NaN above everything; at 1 bit sum|w|.
struct Magnitude {
  int64_t bits;
};

template <class T, int V>
__device__ __forceinline__ void magnitude_piece(const Member<Magnitude>& member, int64_t unit) {
  const Piece piece(member.shape, unit);
  const Unit<T, V> w = load_unit<V>(static_cast<const T*>(member.x) + piece.at, piece.left);
  unsigned largest = 0;
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kUnit; ++i) {
    if (i >= piece.left) continue;
    const float size = std::fabs(load(w[i]));
    largest = max(largest, __float_as_uint(size));
    sum += size;
  }
  largest = block_max<kThreads>(largest);
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0)
    member.partials[unit] = member.op.bits == 1 ? sum : __uint_as_float(largest);
}

template <class T>
__global__ void __launch_bounds__(kThreads) magnitude_many_kernel(
    const __grid_constant__ Table<Magnitude> table) {
  const int m = find_member(table, blockIdx.x), unit = blockIdx.x - table.first[m];
  if (table.member[m].vectorize)
    magnitude_piece<T, kVector<T>>(table.member[m], unit);
  else
    magnitude_piece<T, 1>(table.member[m], unit);
}

template <class T>
Partials magnitudes(const Launch& launch, const Tensors& w, const Integers& bits) {
  const auto op = [&](size_t i) { return OfRows<Magnitude>{{bits[i]}, 1}; };
  Partials partials = partials_of<1>(w, op);
  const auto fill = [&](Member<Magnitude>& member, size_t i) {
    member = member_of<T, Magnitude>(w[i], nullptr, nullptr, op(i));
    member.partials = partials.of(i);
    return blocks_of(member);
  };
  in_tables<Table<Magnitude>>(w.size(), fill, [&](const auto& table, int64_t blocks) {
    launch(magnitude_many_kernel<T>, blocks, kThreads, table);
  });
  return partials;
}

Found found_in(const Partials& partials, size_t i) {
  const Rows& shape = partials.shape[i];
  return {partials.of(i), shape.pieces(), std::max<int64_t>(1, shape.inner)};
}

}  // namespace

tuple<Tensors, Tensor> dorefa_weight_many_forward(Tensors w, Integers bits) {
  const int64_t count = check_some(w);
  check_lengths(w.size(), {bits.size()});
  const Launch launch(w[0]);
  const Tensor maximum = empty(w[0], &count, 1, ScalarType::Float);
  Tensors y;
  for (size_t i = 0; i < w.size(); ++i) {
    check_bits(bits[i], false);
    w[i] = dense(w[i]);
    y.push_back(empty_as(w[i]));
  }
  by_dtype(w[0], [&](auto element) {
    using T = decltype(element);
    const Partials partials = magnitudes<T>(launch, w, bits);
    map_many<T, Weight>(launch, w, y, [&](size_t i) {
      return OfRows<Weight>{
          {found_in(partials, i), mutable_data<float>(maximum) + i, bits[i]}, 1};
    });
  });
  return {y, maximum};
}

Tensors dorefa_weight_many_backward(
    Tensors grad, Tensors w, const Tensor& maximum, Integers bits, bool detach_max) {
  check_some(w);
  check_lengths(w.size(), {grad.size(), bits.size(), size_t(maximum.numel())});
  const Launch launch(w[0]);
  const Tensor all = as_parameter(maximum, ScalarType::Float);
  Tensors dw;
  for (size_t i = 0; i < w.size(); ++i) {
    check_same("grad", grad[i], w[i]);
    check_bits(bits[i], false);
    w[i] = dense(w[i]);
    grad[i] = in_strides_of(grad[i], w[i]);
    dw.push_back(empty_as(w[i]));
  }
  by_dtype(w[0], [&](auto element) {
    using T = decltype(element);
    optional<Partials> sums;
    if (!detach_max)
      sums = backward_many<T, MaximumGradient>(launch, grad, w, dw, [&](size_t i) {
        return OfRows<MaximumGradient>{{data<float>(all) + i, bits[i]}, 1};
      });
    backward_many<T, WeightBackward>(launch, grad, w, dw, [&](size_t i) {
      const Found found = sums ? found_in(*sums, i) : Found{nullptr, 0, 0};
      return OfRows<WeightBackward>{{data<float>(all) + i, found, bits[i]}, 1};
    });
  });
  return dw;
}

}  // namespace daqakd::cuda
