#pragma once

#include "../formulas/augment.h"

#include "../common/math.h"
#include "../common/plan.h"
#include "launch.cuh"

// One image on one block: a workspace with its pixels, and an operation at a time on them. Every
// function is called by the whole block and leaves its threads in step.
namespace daqakd::cuda {

constexpr int kPixelThreads = 256;  // as many as a byte has values

struct Workspace {
  uint8_t* original;  // [3, height, width], cropped
  uint8_t* pixels;    // [3, height, width], what operations change
  uint8_t* next;      // [3, height, width], what they read from when they move pixels
  float* total;  // [3, height, width], the sum of the chains; null where the plan has no `share`
  int height, width, area;
};

// Statistics and tables of the image, which the block's threads share.
struct ImageStats {
  unsigned counts[3][256];
  uint8_t table[3][256];
  int low[3], high[3];
  unsigned long long sum;
};

template <class F>
__device__ __forceinline__ void each(int count, const F& body) {
  for (int i = threadIdx.x; i < count; i += kPixelThreads) body(i);
  __syncthreads();
}

// body(y, x, position in a channel)
template <class F>
__device__ __forceinline__ void each_pixel(const Workspace& ws, const F& body) {
  each(ws.area, [&](int i) { body(i / ws.width, i % ws.width, i); });
}

template <class V, class F>
__device__ __forceinline__ V warp_reduce(V value, const F& combine) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2)
    value = combine(value, __shfl_xor_sync(0xffffffffu, value, step));
  return value;
}

__device__ __forceinline__ void look_up(Workspace& ws, const uint8_t (&table)[3][256]) {
  each_pixel(ws, [&](int, int, int i) {
    for (int c = 0; c < 3; ++c) {
      uint8_t& pixel = ws.pixels[c * ws.area + i];
      pixel = table[c][pixel];
    }
  });
}

// One table for all channels: make(value).
template <class F>
__device__ __forceinline__ void through_table(Workspace& ws, ImageStats& stats, const F& make) {
  each(256, [&](int v) {
    const uint8_t value = make(v);
    for (int c = 0; c < 3; ++c) stats.table[c][v] = value;
  });
  look_up(ws, stats.table);
}

// A warp: lane l counts the pixels below each of the values 8 l to 8 l + 7.
__device__ __forceinline__ void equalize_channel(
    const unsigned (&counts)[256], uint8_t (&table)[256], int lane, unsigned area) {
  unsigned sum = 0;
  int largest = 0;
#pragma unroll
  for (int v = 8 * lane; v < 8 * lane + 8; ++v) {
    sum += counts[v];
    if (counts[v] != 0) largest = v;
  }
  unsigned through = sum;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const unsigned other = __shfl_up_sync(0xffffffffu, through, step);
    if (lane >= step) through += other;
  }
  largest = warp_reduce(largest, [](int a, int b) { return max(a, b); });
  unsigned below = through - sum;
#pragma unroll
  for (int v = 8 * lane; v < 8 * lane + 8; below += counts[v++])
    table[v] = equalized(v, below, counts[largest], area);
}

__device__ __forceinline__ void equalize(Workspace& ws, ImageStats& stats) {
  each(3 * 256, [&](int i) { stats.counts[i / 256][i % 256] = 0; });
  each_pixel(ws, [&](int, int, int i) {
    for (int c = 0; c < 3; ++c) atomicAdd(&stats.counts[c][ws.pixels[c * ws.area + i]], 1u);
  });
  const int warp = threadIdx.x / 32;
  if (warp < 3) equalize_channel(stats.counts[warp], stats.table[warp], threadIdx.x % 32, ws.area);
  __syncthreads();
  look_up(ws, stats.table);
}

template <bool kPil>
__device__ __forceinline__ void stretch(Workspace& ws, ImageStats& stats) {
  each(3, [&](int c) {
    stats.low[c] = 255;
    stats.high[c] = 0;
  });
  for (int c = 0; c < 3; ++c) {
    int low = 255, high = 0;
    for (int i = threadIdx.x; i < ws.area; i += kPixelThreads) {
      const int v = ws.pixels[c * ws.area + i];
      low = min(low, v);
      high = max(high, v);
    }
    low = warp_reduce(low, [](int a, int b) { return min(a, b); });
    high = warp_reduce(high, [](int a, int b) { return max(a, b); });
    if (threadIdx.x % 32 != 0) continue;
    atomicMin(&stats.low[c], low);
    atomicMax(&stats.high[c], high);
  }
  __syncthreads();
  each(256, [&](int v) {
    for (int c = 0; c < 3; ++c)
      stats.table[c][v] = kPil ? autocontrast_pil(v, stats.low[c], stats.high[c])
                               : autocontrast(v, stats.low[c], stats.high[c]);
  });
  look_up(ws, stats.table);
}

template <bool kPil>
__device__ __forceinline__ int grey_of(const Workspace& ws, int i) {
  const int r = ws.pixels[i], g = ws.pixels[ws.area + i], b = ws.pixels[2 * ws.area + i];
  return kPil ? luma(r, g, b) : grey(r, g, b);
}

template <bool kPil>
__device__ __forceinline__ uint8_t blended(float v, float d, const float* factors) {
  return kPil ? blend_pil(v, d, factors[0]) : blend(v, d, factors[0], factors[1]);
}

// The sum is one of integers, so its order does not matter.
template <bool kPil>
__device__ __forceinline__ void contrast(Workspace& ws, ImageStats& stats, const float* factors) {
  each(1, [&](int) { stats.sum = 0; });
  unsigned long long sum = 0;
  for (int i = threadIdx.x; i < ws.area; i += kPixelThreads) sum += grey_of<kPil>(ws, i);
  sum = warp_reduce(sum, [](unsigned long long a, unsigned long long b) { return a + b; });
  if (threadIdx.x % 32 == 0) atomicAdd(&stats.sum, sum);
  __syncthreads();
  const int64_t all = int64_t(stats.sum);
  const float mean = kPil ? mean_luma(all, ws.area) : mean_grey(all, ws.area);
  through_table(ws, stats, [&](int v) { return blended<kPil>(float(v), mean, factors); });
}

template <bool kPil>
__device__ __forceinline__ void color(Workspace& ws, const float* factors) {
  each_pixel(ws, [&](int, int, int i) {
    const float d = float(grey_of<kPil>(ws, i));
    for (int c = 0; c < 3; ++c) {
      uint8_t& pixel = ws.pixels[c * ws.area + i];
      pixel = blended<kPil>(pixel, d, factors);
    }
  });
}

__device__ __forceinline__ void take_next(Workspace& ws) {
  uint8_t* pixels = ws.pixels;
  ws.pixels = ws.next;
  ws.next = pixels;
}

template <bool kPil>
__device__ __forceinline__ void sharpen(Workspace& ws, const float* factors) {
  const int height = ws.height, width = ws.width;
  if (height < 3 || width < 3) return;
  each_pixel(ws, [&](int y, int x, int i) {
    const bool inside = 0 < y && y < height - 1 && 0 < x && x < width - 1;
    for (int c = 0; c < 3; ++c) {
      const uint8_t* v = ws.pixels + c * ws.area + i;
      int mean = *v;
      if (inside) {
        int sum = 4 * mean;
        for (int down = -width; down <= width; down += width)
          sum += v[down - 1] + v[down] + v[down + 1];
        mean = smoothed(sum);
      }
      ws.next[c * ws.area + i] = blended<kPil>(*v, float(mean), factors);
    }
  });
  take_next(ws);
}

__device__ __forceinline__ int pixel_at(const Workspace& ws, int c, int y, int x) {
  const bool inside = 0 <= y && y < ws.height && 0 <= x && x < ws.width;
  return inside ? ws.pixels[c * ws.area + y * ws.width + x] : 0;
}

__device__ __forceinline__ void fixed(Workspace& ws, const int32_t* map) {  // [6]
  each_pixel(ws, [&](int y, int x, int i) {
    const int from_y = fixed_position(map + 3, x, y), from_x = fixed_position(map, x, y);
    for (int c = 0; c < 3; ++c) ws.next[c * ws.area + i] = pixel_at(ws, c, from_y, from_x);
  });
  take_next(ws);
}

template <bool kBilinear>
__device__ __forceinline__ void affine(Workspace& ws, const float* map) {  // [6]
  const float height = float(ws.height), width = float(ws.width);
  each_pixel(ws, [&](int row, int column, int i) {
    const float x = from_middle(column, ws.width), y = from_middle(row, ws.height);
    const float right = clamp_to_border(grid_position(map, x, y, width), width);
    const float down = clamp_to_border(grid_position(map + 3, x, y, height), height);
    const int top = kBilinear ? floor_int(down) : int(round_half_even(down));
    const int left = kBilinear ? floor_int(right) : int(round_half_even(right));
    const Corners corners(down - float(top), right - float(left));
    for (int c = 0; c < 3; ++c) {
      int pixel = pixel_at(ws, c, top, left);
      if constexpr (kBilinear)
        pixel = int(round_half_even(corners.sum(
            float(pixel), float(pixel_at(ws, c, top, left + 1)),
            float(pixel_at(ws, c, top + 1, left)), float(pixel_at(ws, c, top + 1, left + 1)))));
      ws.next[c * ws.area + i] = uint8_t(pixel);
    }
  });
  take_next(ws);
}

}  // namespace daqakd::cuda
