#include "augment_pixels.cuh"

#include "../ops.h"

namespace daqakd::cuda {
namespace {

constexpr int64_t kScratchBlocks = 256;  // workspaces in global memory, of large images
constexpr int64_t kStatsBytes = sizeof(ImageStats);
constexpr int64_t kWaveRows = 4096;  // blocks of a launch: each takes every 4096th row

__device__ __forceinline__ void apply(
    Workspace& ws, ImageStats& stats, const Plan& plan, int setting) {
  const float* real = plan.real + 6 * setting;
  switch (Kind(plan.kind[setting])) {
    case Kind::identity:
      return;
    case Kind::lut:
      return through_table(ws, stats, [&](int v) { return plan.lut[256 * setting + v]; });
    case Kind::equalize:
      return equalize(ws, stats);
    case Kind::fixed:
      return fixed(ws, plan.integer + 6 * setting);
    case Kind::nearest:
      return affine<false>(ws, real);
    case Kind::bilinear:
      return affine<true>(ws, real);
    case Kind::autocontrast_pil:
      return stretch<true>(ws, stats);
    case Kind::contrast_pil:
      return contrast<true>(ws, stats, real);
    case Kind::color_pil:
      return color<true>(ws, real);
    case Kind::sharpness_pil:
      return sharpen<true>(ws, real);
    case Kind::autocontrast:
      return stretch<false>(ws, stats);
    case Kind::contrast:
      return contrast<false>(ws, stats, real);
    case Kind::color:
      return color<false>(ws, real);
    case Kind::sharpness:
      return sharpen<false>(ws, real);
  }
}

// original[y, x] = image[y + top, x + left], 0 outside; mirrored before it is shifted.
__device__ __forceinline__ void crop(
    const Workspace& ws, const uint8_t* image, int64_t top, int64_t left, bool flip) {
  each_pixel(ws, [&](int y, int x, int i) {
    const int64_t row = y + top, column = (flip ? ws.width - 1 - x : x) + left;
    const bool inside = 0 <= row && row < ws.height && 0 <= column && column < ws.width;
    const int64_t at = row * ws.width + column;
    for (int c = 0; c < 3; ++c)
      ws.original[c * ws.area + i] = inside ? image[c * ws.area + at] : uint8_t(0);
  });
}

__device__ __forceinline__ void chains(
    Workspace& ws, ImageStats& stats, const Plan& plan, int64_t row) {
  const int n = 3 * ws.area;
  const float* share = plan.share == nullptr ? nullptr : plan.share + row * (1 + plan.chains);
  if (share != nullptr) each(n, [&](int i) { ws.total[i] = share[0] * float(ws.original[i]); });
  for (int c = 0; c < plan.chains; ++c) {
    each(n, [&](int i) { ws.pixels[i] = ws.original[i]; });
    const int16_t* settings = plan.setting + (row * plan.chains + c) * plan.slots;
    for (int s = 0; s < plan.slots; ++s) {
      const int setting = settings[s];
      if (setting < 0 || setting >= plan.settings) __trap();
      apply(ws, stats, plan, setting);
    }
    if (share != nullptr)
      each(n, [&](int i) { ws.total[i] += share[1 + c] * float(ws.pixels[i]); });
  }
  if (share != nullptr) each(n, [&](int i) { ws.pixels[i] = truncated(ws.total[i]); });
}

__device__ __forceinline__ bool within(const int32_t* box, int i, int width) {
  const int y = i / width, x = i % width;
  return box[0] <= x && x < box[2] && box[1] <= y && y < box[3];
}

template <class T>
__device__ __forceinline__ T written(const float* values, int c, int pixel) {
  if constexpr (std::is_same_v<T, uint8_t>)
    return uint8_t(pixel);
  else if constexpr (std::is_same_v<T, double>)
    return double(values[256 * c + pixel]);
  else
    return store<T>(values[256 * c + pixel]);
}

// body(channel, position in it, number in the output) in the output's order.
template <class F>
__device__ __forceinline__ void each_output(int area, bool channels_last, const F& body) {
  each(3 * area, [&](int i) {
    channels_last ? body(i % 3, i / 3, i) : body(i / area, i % area, i);
  });
}

// The workspace of this block, in its shared memory or in its part of `scratch`.
__device__ __forceinline__ Workspace
workspace_of(const Plan& plan, uint8_t* scratch, int64_t bytes) {
  DAQAKD_DYNAMIC_SHARED(uint8_t, shared);
  const int area = plan.height * plan.width;
  uint8_t* first = scratch == nullptr ? shared : scratch + blockIdx.x * bytes;
  float* total = plan.share == nullptr ? nullptr : reinterpret_cast<float*>(first);
  uint8_t* bytes_from = first + (total == nullptr ? 0 : 12 * int64_t(area));
  return {bytes_from, bytes_from + 3 * area, bytes_from + 6 * area, total, plan.height, plan.width,
          area};
}

// One block: one row at a time.
template <class T>
__global__ void __launch_bounds__(kPixelThreads, 3) augment_kernel(
    const Plan plan,
    T* __restrict__ out,  // [rows, 3, height, width]
    uint8_t* scratch,     // [blocks, bytes], or null: workspaces in shared memory
    int64_t bytes, bool channels_last) {
  __shared__ ImageStats stats;
  Workspace ws = workspace_of(plan, scratch, bytes);
  for (int64_t row = blockIdx.x; row < plan.rows; row += gridDim.x) {
    const int64_t image = plan.index[row];
    if (image < 0 || image >= plan.images) __trap();
    crop(
        ws, plan.pixels + image * 3 * ws.area, plan.crop[2 * row], plan.crop[2 * row + 1],
        plan.flip[row]);
    chains(ws, stats, plan, row);
    T* to = out + row * 3 * ws.area;
    each_output(ws.area, channels_last, [&](int c, int position, int i) {
      const bool erased = plan.erase != nullptr && within(plan.erase + 4 * row, position, ws.width);
      to[i] = written<T>(plan.values, c, erased ? 0 : ws.pixels[c * ws.area + position]);
    });
  }
}

// One block: one output. CutMix and MixUp of augmented rows.
template <class T>
__global__ void __launch_bounds__(kPixelThreads) augment_mix_kernel(
    const Plan plan,
    const uint8_t* __restrict__ rows,  // [rows, 3, height, width]
    T* __restrict__ out,               // [outputs, 3, height, width]
    bool channels_last) {
  const int area = plan.height * plan.width;
  for (int64_t image = blockIdx.x; image < plan.outputs; image += gridDim.x) {
    const int64_t partner = plan.partner[image];
    if (partner < 0 || partner >= plan.rows) __trap();
    const uint8_t *own = rows + image * 3 * area, *other = rows + partner * 3 * area;
    T* to = out + image * 3 * area;
    each_output(area, channels_last, [&](int c, int position, int i) {
      const int at = c * area + position;
      if (plan.box != nullptr) {
        const uint8_t* from = within(plan.box + 4 * image, position, plan.width) ? other : own;
        to[i] = written<T>(plan.values, c, from[at]);
      } else if constexpr (!std::is_same_v<T, uint8_t>) {
        const float weight = plan.weight[image];
        const float mine = weight * plan.values[256 * c + own[at]];
        const float theirs = (1.0f - weight) * plan.values[256 * c + other[at]];
        if constexpr (std::is_same_v<T, double>)
          to[i] = double(mine + theirs);
        else
          to[i] = store<T>(mine + theirs);
      }
    });
  }
}

// Rows to `out`: workspaces in shared memory where they fit, else in global memory.
template <class T>
void augment_rows(
    const Launch& launch, const Plan& plan, const Tensor& model, T* out, bool channels_last) {
  const int64_t bytes = (plan.area() * (plan.share == nullptr ? 9 : 21) + 15) / 16 * 16;
  const auto kernel = augment_kernel<T>;
  if (launch.can_share(kernel, bytes, bytes + kStatsBytes)) {
    uint8_t* none = nullptr;
    return launch.sharing(
        kernel, std::min(plan.rows, kWaveRows), kPixelThreads, bytes, plan, out, none, bytes,
        channels_last);
  }
  const int64_t blocks = std::min(plan.rows, kScratchBlocks), size = blocks * bytes;
  const Tensor scratch = empty(model, &size, 1, ScalarType::Byte);
  launch(
      kernel, blocks, kPixelThreads, plan, out, mutable_data<uint8_t>(scratch), bytes,
      channels_last);
}

// Calls body with a value of the element type of `x`.
template <class F>
void by_output(const Tensor& x, const F& body) {
  if (x.scalar_type() == ScalarType::Byte) return body(uint8_t{});
  if (x.scalar_type() == ScalarType::Double) return body(double{});
  by_dtype(x, body);
}

}  // namespace

Tensor augment(
    const Tensor& pixels, const Tensor& index, const Tensor& crop, const Tensor& flip,
    const Tensor& setting, const Tensor& kind, const Tensor& lut, const Tensor& integer,
    const Tensor& real, const optional<Tensor>& share, const optional<Tensor>& erase,
    const optional<Tensor>& partner, const optional<Tensor>& box, const optional<Tensor>& weight,
    const optional<Tensor>& values, ScalarType dtype, bool channels_last) {
  PlanReader reader(pixels);
  const Plan plan = read_plan(
      reader, pixels, index, crop, flip, setting, kind, lut, integer, real, share, erase, partner,
      box, weight, values);
  const Launch launch(pixels);
  require(plan.outputs <= plan.rows, "partner: expected at most a row for each image");
  Tensor out = empty_images(plan, pixels, dtype, channels_last);
  if (out.numel() == 0) return out;
  const Tensor rows = scratch_rows(plan, pixels);
  if (plan.partner != nullptr)
    augment_rows(launch, plan, pixels, mutable_data<uint8_t>(rows), false);
  by_output(out, [&](auto element) {
    using T = decltype(element);
    T* to = mutable_data<T>(out);
    if (plan.partner == nullptr) return augment_rows(launch, plan, pixels, to, channels_last);
    launch(
        augment_mix_kernel<T>, std::min(plan.outputs, kWaveRows), kPixelThreads, plan,
        data<uint8_t>(rows), to, channels_last);
  });
  return out;
}

}  // namespace daqakd::cuda
