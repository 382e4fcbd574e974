#pragma once

#include "kd_rows.cuh"

// The kernels of the distillation loss: short rows in registers, long rows read twice.
namespace daqakd::cuda {

template <class T>
__device__ __forceinline__ bool is_centred(const Batch<T>& batch) {
  return batch.temperature.value() >= float(kCentredTemperature);
}

// Rows whole in the registers of G threads, N elements each.
template <class T, int V, int G, int N>
__global__ void __launch_bounds__(kRowThreads) kd_rows(Batch<T> batch) {
  const int64_t row = (int64_t(blockIdx.x) * kRowThreads + threadIdx.x) / G;
  const bool valid = row < batch.rows;
  const RowFragment<V, G, N> fragment(valid ? batch.classes : 0, 0);
  const float count = count_rows<kRowThreads>(batch);
  const float inverse = 1 / batch.temperature.value();
  const RowTarget target(batch, row);
  float z[N], t[N], top[2] = {-INFINITY, -INFINITY}, sums[6] = {};
  fragment.load_row(batch.student + row * batch.classes, z);
  fragment.load_row(batch.teacher + row * batch.classes, t);
  fragment.each([&](int i, int64_t) {
    top[0] = Largest()(top[0], z[i]);
    top[1] = Largest()(top[1], t[i]);
  });
  combine<G>(top, Largest());
  fragment.each([&](int i, int64_t k) {
    z[i] -= top[0];
    t[i] -= top[1];
    const KDExponentials<float> e = kd_exponentials(z[i], t[i], inverse);
    const float weight = k < batch.classes ? target.at(k) : 0.0f;
    sums[0] += e.exp_z, sums[1] += e.exp_z_T, sums[2] += e.exp_t_T;
    sums[3] += kd_kl_term(e.exp_t_T, z[i], t[i], inverse);
    sums[4] += weight, sums[5] += kd_weighted(weight, z[i]);
    t[i] = e.exp_t_T;
  });
  combine<G>(sums, Sum());
  KDCentre<float> centre(sums[2], sums[3]);
  if (is_centred(batch)) {  // t becomes the teacher's logit, then what the gradient takes
    const T* teacher = batch.teacher + row * batch.classes;
    float spread[1] = {};
    fragment.read(teacher, [&](int i, float ti) {
      const float logit = ti - top[1];
      spread[0] += centre.term(exp_of(z[i] * inverse), t[i], (z[i] - logit) * inverse);
      t[i] = logit;
    });
    combine<G>(spread, Sum());
    centre.spread = spread[0] / centre.total;
    fragment.each([&](int i, int64_t) {
      const float d = (z[i] - t[i]) * inverse, exp_t_T = exp_of(t[i] * inverse);
      t[i] = centre.holds() ? centre.difference(exp_of(z[i] * inverse), exp_t_T, d) : exp_t_T;
    });
  }
  const bool writes = valid && threadIdx.x % G == 0;
  const KDRow<float> found = finish_row(batch, row, sums, centre.spread, count, writes);
  if (batch.grad && valid) {
    const float factor = upstream_of(batch, row);
    fragment.each([&](int i, int64_t k) {
      const float exp_z_T = centre.holds() ? t[i] : exp_of(z[i] * inverse);
      const KDExponentials<float> e{exp_of(z[i]), exp_z_T, t[i]};
      const float weight = k < batch.classes ? target.at(k) : 0.0f;
      z[i] = (kd_gradient(e, found) - found.target_scale * weight) * factor;
    });
    fragment.store_row(batch.grad + row * batch.classes, z);
  }
  if (batch.loss && !batch.unreduced)
    reduce_loss<kRowThreads>(batch, writes ? found.ce : 0, writes ? found.kl : 0, count);
}

// Sums relative to the largest logits seen so far; they start below every logit but -inf.
struct OnlineSums {
  float top_z = -FLT_MAX, top_t = -FLT_MAX;
  float sums[6] = {};  // as in kd_rows

  __device__ __forceinline__ void rebase(float z, float t, float inverse) {
    const float down_z = top_z - z, down_t = top_t - t, lower = exp_of(down_t * inverse);
    const float shift = kd_kl_term(sums[2], down_z, down_t, inverse);
    sums[0] *= exp_of(down_z);
    sums[1] *= exp_of(down_z * inverse);
    sums[2] *= lower;
    sums[3] = (sums[3] + shift) * lower;
    sums[5] += kd_weighted(sums[4], down_z);
    top_z = z;
    top_t = t;
  }
};

// A row's spread, by reading it once more.
template <int V, class T>
__device__ __forceinline__ float spread_of(
    const Batch<T>& batch, int64_t offset, const KDCentre<float>& centre, const float (&top)[2],
    float inverse) {
  float z[V], t[V], spread[1] = {};
#pragma unroll 1
  for (int64_t first = 0; first < batch.classes; first += kLongThreads * V) {
    const RowFragment<V, kLongThreads, V> fragment(batch.classes, first);
    fragment.load_row(batch.student + offset, z);
    fragment.load_row(batch.teacher + offset, t);
    fragment.each([&](int i, int64_t) {
      const float zi = (z[i] - top[0]) * inverse, ti = (t[i] - top[1]) * inverse;
      spread[0] += centre.term(exp_of(zi), exp_of(ti), (z[i] - top[0] - (t[i] - top[1])) * inverse);
    });
  }
  combine<kLongThreads>(spread, Sum());
  return spread[0] / centre.total;
}

// A block is a row, which is read twice.
template <class T, int V>
__global__ void __launch_bounds__(kLongThreads, 3) kd_long(Batch<T> batch) {
  using Fragment = RowFragment<V, kLongThreads, kLongFragment>;
  const int64_t row = blockIdx.x, offset = row * batch.classes;
  const float count = count_rows<kLongThreads>(batch);
  const float inverse = 1 / batch.temperature.value();
  const RowTarget target(batch, row);
  OnlineSums online;
  float z[kLongFragment], t[kLongFragment];
#pragma unroll 1
  for (int64_t first = 0; first < batch.classes; first += kLongThreads * kLongFragment) {
    const Fragment fragment(batch.classes, first);
    fragment.load_row(batch.student + offset, z);
    fragment.load_row(batch.teacher + offset, t);
    float top_z = online.top_z, top_t = online.top_t;
    fragment.each([&](int i, int64_t) {
      top_z = Largest()(top_z, z[i]);
      top_t = Largest()(top_t, t[i]);
    });
    online.rebase(top_z, top_t, inverse);
    fragment.each([&](int i, int64_t k) {
      const float zi = z[i] - top_z, ti = t[i] - top_t;
      const KDExponentials<float> e = kd_exponentials(zi, ti, inverse);
      const float weight = k < batch.classes ? target.at(k) : 0.0f;
      online.sums[0] += e.exp_z, online.sums[1] += e.exp_z_T, online.sums[2] += e.exp_t_T;
      online.sums[3] += kd_kl_term(e.exp_t_T, zi, ti, inverse);
      online.sums[4] += weight, online.sums[5] += kd_weighted(weight, zi);
    });
  }
  float top[2] = {online.top_z, online.top_t};
  combine<kLongThreads>(top, Largest());
  online.rebase(top[0], top[1], inverse);
  combine<kLongThreads>(online.sums, Sum());
  KDCentre<float> centre(online.sums[2], online.sums[3]);
  if (is_centred(batch)) centre.spread = spread_of<V>(batch, offset, centre, top, inverse);
  const KDRow<float> found =
      finish_row(batch, row, online.sums, centre.spread, count, threadIdx.x == 0);
  const float factor = upstream_of(batch, row);
#pragma unroll 1
  for (int64_t first = 0; batch.grad && first < batch.classes;
       first += kLongThreads * kLongFragment) {
    const Fragment fragment(batch.classes, first);
    fragment.load_row(batch.student + offset, z);
    fragment.load_row(batch.teacher + offset, t);
    fragment.each([&](int i, int64_t k) {
      const float zi = z[i] - top[0], ti = t[i] - top[1];
      KDExponentials<float> e = kd_exponentials(zi, ti, inverse);
      if (centre.holds()) e.exp_z_T = centre.difference(e.exp_z_T, e.exp_t_T, (zi - ti) * inverse);
      const float weight = k < batch.classes ? target.at(k) : 0.0f;
      z[i] = (kd_gradient(e, found) - found.target_scale * weight) * factor;
    });
    fragment.store_row(batch.grad + offset, z);
  }
  if (batch.loss && !batch.unreduced)
    reduce_loss<kLongThreads>(
        batch, threadIdx.x == 0 ? found.ce : 0, threadIdx.x == 0 ? found.kl : 0, count);
}

}  // namespace daqakd::cuda
