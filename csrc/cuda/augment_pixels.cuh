#pragma once

#include "../formulas/augment.h"

#include "launch.cuh"
#include "../common/math.h"
#include "../common/plan.h"

// One image on one block: a desk with its pixels, and an operation at a time on them. Every function
// is called by the whole block and leaves its threads in step.
namespace daqakd::cuda {

constexpr int kPixelThreads = 256;  // as many as a byte has values

struct Desk {
  uint8_t* original;  // [3, height, width], cropped
  uint8_t* pixels;    // [3, height, width], what operations change
  uint8_t* next;      // [3, height, width], what they read from when they move pixels
  float* total;       // [3, height, width], the sum of the chains; null without shares
  int height, width, area;
};

// What the threads tell each other about the image.
struct Board {
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

// body(y, x, place in a channel)
template <class F>
__device__ __forceinline__ void each_place(const Desk& desk, const F& body) {
  each(desk.area, [&](int i) { body(i / desk.width, i % desk.width, i); });
}

template <class V, class F>
__device__ __forceinline__ V warp_fold(V value, const F& fold) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2)
    value = fold(value, __shfl_xor_sync(0xffffffffu, value, step));
  return value;
}

__device__ __forceinline__ void look_up(Desk& desk, const uint8_t (&table)[3][256]) {
  each_place(desk, [&](int, int, int i) {
    for (int c = 0; c < 3; ++c) {
      uint8_t& pixel = desk.pixels[c * desk.area + i];
      pixel = table[c][pixel];
    }
  });
}

// One table for all channels: make(value).
template <class F>
__device__ __forceinline__ void through_table(Desk& desk, Board& board, const F& make) {
  each(256, [&](int v) {
    const uint8_t value = make(v);
    for (int c = 0; c < 3; ++c) board.table[c][v] = value;
  });
  look_up(desk, board.table);
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
  largest = warp_fold(largest, [](int a, int b) { return max(a, b); });
  unsigned below = through - sum;
#pragma unroll
  for (int v = 8 * lane; v < 8 * lane + 8; below += counts[v++])
    table[v] = equalized(v, below, counts[largest], area);
}

__device__ __forceinline__ void equalize(Desk& desk, Board& board) {
  each(3 * 256, [&](int i) { board.counts[i / 256][i % 256] = 0; });
  each_place(desk, [&](int, int, int i) {
    for (int c = 0; c < 3; ++c) atomicAdd(&board.counts[c][desk.pixels[c * desk.area + i]], 1u);
  });
  const int warp = threadIdx.x / 32;
  if (warp < 3) equalize_channel(board.counts[warp], board.table[warp], threadIdx.x % 32, desk.area);
  __syncthreads();
  look_up(desk, board.table);
}

template <bool kPil>
__device__ __forceinline__ void stretch(Desk& desk, Board& board) {
  each(3, [&](int c) {
    board.low[c] = 255;
    board.high[c] = 0;
  });
  for (int c = 0; c < 3; ++c) {
    int low = 255, high = 0;
    for (int i = threadIdx.x; i < desk.area; i += kPixelThreads) {
      const int v = desk.pixels[c * desk.area + i];
      low = min(low, v);
      high = max(high, v);
    }
    low = warp_fold(low, [](int a, int b) { return min(a, b); });
    high = warp_fold(high, [](int a, int b) { return max(a, b); });
    if (threadIdx.x % 32 != 0) continue;
    atomicMin(&board.low[c], low);
    atomicMax(&board.high[c], high);
  }
  __syncthreads();
  each(256, [&](int v) {
    for (int c = 0; c < 3; ++c)
      board.table[c][v] = kPil ? autocontrast_pil(v, board.low[c], board.high[c])
                               : autocontrast(v, board.low[c], board.high[c]);
  });
  look_up(desk, board.table);
}

template <bool kPil>
__device__ __forceinline__ int grey_of(const Desk& desk, int i) {
  const int r = desk.pixels[i], g = desk.pixels[desk.area + i], b = desk.pixels[2 * desk.area + i];
  return kPil ? luma(r, g, b) : grey(r, g, b);
}

template <bool kPil>
__device__ __forceinline__ uint8_t blended(float v, float d, const float* factors) {
  return kPil ? blend_pil(v, d, factors[0]) : blend(v, d, factors[0], factors[1]);
}

// The sum is one of integers, so its order does not matter.
template <bool kPil>
__device__ __forceinline__ void contrast(Desk& desk, Board& board, const float* factors) {
  each(1, [&](int) { board.sum = 0; });
  unsigned long long sum = 0;
  for (int i = threadIdx.x; i < desk.area; i += kPixelThreads) sum += grey_of<kPil>(desk, i);
  sum = warp_fold(sum, [](unsigned long long a, unsigned long long b) { return a + b; });
  if (threadIdx.x % 32 == 0) atomicAdd(&board.sum, sum);
  __syncthreads();
  const int64_t all = int64_t(board.sum);
  const float mean = kPil ? mean_luma(all, desk.area) : mean_grey(all, desk.area);
  through_table(desk, board, [&](int v) { return blended<kPil>(float(v), mean, factors); });
}

template <bool kPil>
__device__ __forceinline__ void color(Desk& desk, const float* factors) {
  each_place(desk, [&](int, int, int i) {
    const float d = float(grey_of<kPil>(desk, i));
    for (int c = 0; c < 3; ++c) {
      uint8_t& pixel = desk.pixels[c * desk.area + i];
      pixel = blended<kPil>(pixel, d, factors);
    }
  });
}

__device__ __forceinline__ void take_next(Desk& desk) {
  uint8_t* pixels = desk.pixels;
  desk.pixels = desk.next;
  desk.next = pixels;
}

template <bool kPil>
__device__ __forceinline__ void sharpen(Desk& desk, const float* factors) {
  const int height = desk.height, width = desk.width;
  if (height < 3 || width < 3) return;
  each_place(desk, [&](int y, int x, int i) {
    const bool inside = 0 < y && y < height - 1 && 0 < x && x < width - 1;
    for (int c = 0; c < 3; ++c) {
      const uint8_t* v = desk.pixels + c * desk.area + i;
      int mean = *v;
      if (inside) {
        int sum = 4 * mean;
        for (int down = -width; down <= width; down += width)
          sum += v[down - 1] + v[down] + v[down + 1];
        mean = smoothed(sum);
      }
      desk.next[c * desk.area + i] = blended<kPil>(*v, float(mean), factors);
    }
  });
  take_next(desk);
}

__device__ __forceinline__ int pixel_at(const Desk& desk, int c, int y, int x) {
  const bool inside = 0 <= y && y < desk.height && 0 <= x && x < desk.width;
  return inside ? desk.pixels[c * desk.area + y * desk.width + x] : 0;
}

__device__ __forceinline__ void fixed(Desk& desk, const int32_t* map) {  // [6]
  each_place(desk, [&](int y, int x, int i) {
    const int from_y = fixed_place(map + 3, x, y), from_x = fixed_place(map, x, y);
    for (int c = 0; c < 3; ++c) desk.next[c * desk.area + i] = pixel_at(desk, c, from_y, from_x);
  });
  take_next(desk);
}

template <bool kBilinear>
__device__ __forceinline__ void affine(Desk& desk, const float* map) {  // [6]
  const float height = float(desk.height), width = float(desk.width);
  each_place(desk, [&](int row, int column, int i) {
    const float x = from_middle(column, desk.width), y = from_middle(row, desk.height);
    const float right = onto_rim(grid_place(map, x, y, width), width);
    const float down = onto_rim(grid_place(map + 3, x, y, height), height);
    const int top = kBilinear ? floor_int(down) : int(round_half_even(down));
    const int left = kBilinear ? floor_int(right) : int(round_half_even(right));
    const Corners shares(down - float(top), right - float(left));
    for (int c = 0; c < 3; ++c) {
      int pixel = pixel_at(desk, c, top, left);
      if constexpr (kBilinear)
        pixel = int(round_half_even(shares.sum(
            float(pixel), float(pixel_at(desk, c, top, left + 1)),
            float(pixel_at(desk, c, top + 1, left)), float(pixel_at(desk, c, top + 1, left + 1)))));
      desk.next[c * desk.area + i] = uint8_t(pixel);
    }
  });
  take_next(desk);
}

}  // namespace daqakd::cuda
