#pragma once

#include "kd_rows.cuh"

// The kernels of the distillation loss: short rows in registers, long rows read twice.
namespace daqakd::cuda {

// Rows whole in the registers of G threads, N elements each.
template <class T, int V, int G, int N>
__global__ void __launch_bounds__(kRowThreads) kd_rows(Batch<T> batch) {
  const int64_t row = (int64_t(blockIdx.x) * kRowThreads + threadIdx.x) / G;
  const bool own = row < batch.rows;
  const Strand<V, G, N> strand(own ? batch.classes : 0, 0);
  const float count = count_rows<kRowThreads>(batch);
  const float inverse = 1 / batch.temperature.value();
  const RowTarget target(batch, row);
  float z[N], t[N], top[2] = {-INFINITY, -INFINITY}, sums[6] = {};
  strand.load_row(batch.student + row * batch.classes, z);
  strand.load_row(batch.teacher + row * batch.classes, t);
  strand.each([&](int i, int64_t) {
    top[0] = Largest()(top[0], z[i]);
    top[1] = Largest()(top[1], t[i]);
  });
  combine<G>(top, Largest());
  strand.each([&](int i, int64_t k) {
    z[i] -= top[0];
    t[i] -= top[1];
    const KDClass<float> e = kd_class(z[i], t[i], inverse);
    const float weight = k < batch.classes ? target.at(k) : 0.0f;
    sums[0] += e.hard, sums[1] += e.soft, sums[2] += e.teacher;
    sums[3] += kd_cross(e.teacher, z[i], t[i], inverse);
    sums[4] += weight, sums[5] += kd_weighted(weight, z[i]);
    t[i] = e.teacher;
  });
  combine<G>(sums, Sum());
  const bool writes = own && threadIdx.x % G == 0;
  const KDRow<float> found = finish_row(batch, row, sums, count, writes);
  if (batch.grad && own) {
    const float factor = upstream_of(batch, row);
    strand.each([&](int i, int64_t k) {
      const KDClass<float> e{exp_of(z[i]), exp_of(z[i] * inverse), t[i]};
      const float weight = k < batch.classes ? target.at(k) : 0.0f;
      z[i] = (kd_gradient(e, found) - found.target * weight) * factor;
    });
    strand.store_row(batch.grad + row * batch.classes, z);
  }
  if (batch.loss && !batch.each)
    reduce_loss<kRowThreads>(batch, writes ? found.ce : 0, writes ? found.kl : 0, count);
}

// Sums relative to the largest logits seen so far; they start below every logit but -inf.
struct Running {
  float top_z = -FLT_MAX, top_t = -FLT_MAX;
  float sums[6] = {};  // as in kd_rows

  __device__ __forceinline__ void raise(float z, float t, float inverse) {
    const float down_z = top_z - z, down_t = top_t - t, lower = exp_of(down_t * inverse);
    const float shift = kd_cross(sums[2], down_z, down_t, inverse);
    sums[0] *= exp_of(down_z);
    sums[1] *= exp_of(down_z * inverse);
    sums[2] *= lower;
    sums[3] = (sums[3] + shift) * lower;
    sums[5] += kd_weighted(sums[4], down_z);
    top_z = z;
    top_t = t;
  }
};

// A block is a row, which is read twice.
template <class T, int V>
__global__ void __launch_bounds__(kLongThreads) kd_long(Batch<T> batch) {
  using Part = Strand<V, kLongThreads, kLongUnit>;
  const int64_t row = blockIdx.x, offset = row * batch.classes;
  const float count = count_rows<kLongThreads>(batch);
  const float inverse = 1 / batch.temperature.value();
  const RowTarget target(batch, row);
  Running running;
  float z[kLongUnit], t[kLongUnit];
#pragma unroll 1
  for (int64_t first = 0; first < batch.classes; first += kLongThreads * kLongUnit) {
    const Part part(batch.classes, first);
    part.load_row(batch.student + offset, z);
    part.load_row(batch.teacher + offset, t);
    float top_z = running.top_z, top_t = running.top_t;
    part.each([&](int i, int64_t) {
      top_z = Largest()(top_z, z[i]);
      top_t = Largest()(top_t, t[i]);
    });
    running.raise(top_z, top_t, inverse);
    part.each([&](int i, int64_t k) {
      const float zi = z[i] - top_z, ti = t[i] - top_t;
      const KDClass<float> e = kd_class(zi, ti, inverse);
      const float weight = k < batch.classes ? target.at(k) : 0.0f;
      running.sums[0] += e.hard, running.sums[1] += e.soft, running.sums[2] += e.teacher;
      running.sums[3] += kd_cross(e.teacher, zi, ti, inverse);
      running.sums[4] += weight, running.sums[5] += kd_weighted(weight, zi);
    });
  }
  float top[2] = {running.top_z, running.top_t};
  combine<kLongThreads>(top, Largest());
  running.raise(top[0], top[1], inverse);
  combine<kLongThreads>(running.sums, Sum());
  const KDRow<float> found = finish_row(batch, row, running.sums, count, threadIdx.x == 0);
  const float factor = upstream_of(batch, row);
#pragma unroll 1
  for (int64_t first = 0; batch.grad && first < batch.classes; first += kLongThreads * kLongUnit) {
    const Part part(batch.classes, first);
    part.load_row(batch.student + offset, z);
    part.load_row(batch.teacher + offset, t);
    part.each([&](int i, int64_t k) {
      const KDClass<float> e = kd_class(z[i] - top[0], t[i] - top[1], inverse);
      const float weight = k < batch.classes ? target.at(k) : 0.0f;
      z[i] = (kd_gradient(e, found) - found.target * weight) * factor;
    });
    part.store_row(batch.grad + offset, z);
  }
  if (batch.loss && !batch.each)
    reduce_loss<kLongThreads>(
        batch, threadIdx.x == 0 ? found.ce : 0, threadIdx.x == 0 ? found.kl : 0, count);
}

}  // namespace daqakd::cuda
