#include "../common/kd_arguments.h"
#include "../ops.h"
#include "kd_kernels.cuh"

namespace daqakd::cuda {
namespace {

constexpr int kCountThreads = 256, kCountTile = 4096;

// How many of a tile's labels are not ignored.
__global__ void __launch_bounds__(kCountThreads) kd_count(
    const int64_t* __restrict__ labels,  // [B]
    int64_t rows, int64_t ignore,
    unsigned* __restrict__ counts) {  // [blocks]
  __shared__ unsigned total;
  if (threadIdx.x == 0) total = 0;
  __syncthreads();
  const int64_t first = int64_t(blockIdx.x) * kCountTile;
  unsigned found = 0;
  for (int64_t i = first + threadIdx.x; i < min(rows, first + kCountTile); i += kCountThreads)
    found += labels[i] != ignore;
  atomicAdd(&total, found);
  __syncthreads();
  if (threadIdx.x == 0) counts[blockIdx.x] = total;
}

// The classes of a row decide how many threads share it and how many elements each holds.
template <class T, int V, class F>
void with_kernel(int64_t classes, const F& run) {
  if (classes <= 32) return run(kd_rows<T, V, 4, 8>, kRowThreads / 4, kRowThreads);
  if (classes <= 256) return run(kd_rows<T, V, 32, 8>, kRowThreads / 32, kRowThreads);
  if (classes <= 1024) return run(kd_rows<T, V, 32, 32>, kRowThreads / 32, kRowThreads);
  if (classes <= 2048) return run(kd_rows<T, V, 256, 8>, 1, kRowThreads);
  if (classes <= 8192) return run(kd_rows<T, V, 256, 32>, 1, kRowThreads);
  run(kd_long<T, V>, 1, kLongThreads);
}

// Up to here a launch's blocks count the labels themselves; beyond, a launch before it does.
constexpr int64_t kReadLabels = int64_t(1) << 21;

template <class T>
void launch_rows(const Launch& launch, const Tensor& model, Batch<T> batch) {
  const auto run = [&](auto kernel, int64_t height, int threads) {
    const int64_t blocks = (batch.rows + height - 1) / height;
    const int64_t tiles = (batch.rows + kCountTile - 1) / kCountTile;
    const int64_t words[2] = {4 * blocks, tiles};  // partials, counts
    const Tensor memory = scratch(model, words[0] + words[1]);
    batch.partials = reinterpret_cast<double*>(mutable_data<float>(memory));
    const bool adds_up = batch.loss && !batch.unreduced;
    const LaunchCounter counter(launch, model, adds_up && blocks > 1);
    batch.counter = counter.get();
    if (batch.mean && batch.labels && blocks * batch.rows > kReadLabels) {
      unsigned* counts = reinterpret_cast<unsigned*>(mutable_data<float>(memory) + words[0]);
      launch(kd_count, tiles, kCountThreads, batch.labels, batch.rows, batch.ignore, counts);
      batch.counts = counts, batch.counted = tiles;
    }
    launch(kernel, blocks, threads, batch);
  };
  const bool whole =
      batch.classes % kVector<T> == 0 && aligned({batch.student, batch.teacher, batch.grad});
  if (whole)
    with_kernel<T, kVector<T>>(batch.classes, run);
  else
    with_kernel<T, 1>(batch.classes, run);
}

// Contiguous and of one dtype: logits of different dtypes are computed with as float32.
struct Prepared {
  explicit Prepared(const KDArguments& given) : launch(given.student) {
    const auto type = given.student.scalar_type() == given.teacher.scalar_type()
                          ? given.student.scalar_type()
                          : ScalarType::Float;
    student = as_parameter(given.student, type);
    teacher = as_parameter(given.teacher, type);
    if (given.labels)
      labels = given.has_hard_labels() ? as_contiguous(*given.labels)
                                       : as_parameter(*given.labels, ScalarType::Float);
    temperature = as_floats(given.temperature_tensor);
    ce_weight = as_floats(given.ce_weight_tensor);
    kd_weight = as_floats(given.kd_weight_tensor);
  }

  template <class T>
  Batch<T> batch(const KDArguments& given) const {
    Batch<T> batch{data<T>(student), data<T>(teacher)};
    batch.rows = student.size(0), batch.classes = student.size(1);
    batch.ignore = given.ignore_index;
    batch.temperature = scalar_of(temperature, given.temperature);
    batch.ce_weight = scalar_of(ce_weight, given.ce_weight);
    batch.kd_weight = scalar_of(kd_weight, given.kd_weight);
    batch.smoothing = float(given.label_smoothing);
    batch.mean = given.reduction == KDReduction::mean;
    batch.unreduced = given.reduction == KDReduction::none;
    if (given.has_hard_labels()) batch.labels = data<int64_t>(labels);
    if (given.labels && !batch.labels) batch.weights = data<float>(labels);
    batch.scale = batch.mean ? float(given.inverse_rows()) : 1;
    return batch;
  }

  Launch launch;
  Tensor student, teacher, labels;
  optional<Tensor> temperature, ce_weight, kd_weight;
};

// The gradient in the dtype that was computed with -> the student's.
Tensor in_dtype_of(const Tensor& student, const Tensor& grad) {
  return as_parameter(grad, student.scalar_type());
}

}  // namespace

tuple<Tensor, Tensor, Tensor, Tensor, Tensor> kd_loss_forward(
    const KDArguments& given, bool with_grad) {
  given.check();
  const Prepared prepared(given);
  KDOutputs out(given, false);
  if (given.student.size(0) == 0) {
    torch::stable::zero_(out.loss);
    torch::stable::zero_(out.parts);
    return out.all();
  }
  out.grad = KDOutputs::gradient(prepared.student, with_grad);
  by_dtype(prepared.student, [&](auto element) {
    using T = decltype(element);
    Batch<T> batch = prepared.batch<T>(given);
    batch.loss = mutable_data<float>(out.loss), batch.parts = mutable_data<float>(out.parts);
    batch.ce = mutable_data<float>(out.ce), batch.kl = mutable_data<float>(out.kl);
    if (with_grad) batch.grad = mutable_data<T>(out.grad);
    launch_rows(prepared.launch, prepared.student, batch);
  });
  out.grad = in_dtype_of(given.student, out.grad);
  return out.all();
}

Tensor kd_loss_backward(const Tensor& grad, const KDArguments& given) {
  given.check();
  given.check_upstream(grad);
  const Prepared prepared(given);
  const Tensor result = KDOutputs::gradient(prepared.student, true);
  if (given.student.size(0) == 0) return in_dtype_of(given.student, result);
  const Tensor upstream = as_parameter(grad, ScalarType::Float);
  by_dtype(prepared.student, [&](auto element) {
    using T = decltype(element);
    Batch<T> batch = prepared.batch<T>(given);
    batch.upstream = data<float>(upstream);
    batch.grad = mutable_data<T>(result);
    launch_rows(prepared.launch, prepared.student, batch);
  });
  return in_dtype_of(given.student, result);
}

}  // namespace daqakd::cuda
