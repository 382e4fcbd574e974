#pragma once

#include "augment_pixels.h"

// Geometry: where a chunk of an output row comes from, then the look-up in the rimmed image.
namespace daqakd::cpu {

// A chunk of an output row: columns [first, first + count) of row y.
struct Chunk {
  int y, first, count;
};

// Places are relative to the first pixel inside the rim.
struct FixedPlaces {
  DAQAKD_INLINE static void run(
      const Desk* desk, Chunk chunk, const int32_t* map, int32_t* __restrict__ places) {
    const int32_t across[3] = {map[0], map[1], map[2]}, down[3] = {map[3], map[4], map[5]};
    const int height = desk->height, width = desk->width, pitch = desk->pitch;
    for (int i = 0; i < chunk.count; ++i) {
      const int x = chunk.first + i;
      const int row = onto_rim(fixed_place(down, x, chunk.y), height);
      places[i] = row * pitch + onto_rim(fixed_place(across, x, chunk.y), width);
    }
  }
};

// Where output pixels lie in the input, kept within the rim.
struct GridPositions {
  DAQAKD_INLINE static void run(
      const Desk* desk, Chunk chunk, const float* map, float* __restrict__ down,
      float* __restrict__ right) {
    const float r[6] = {map[0], map[1], map[2], map[3], map[4], map[5]};
    const float height = float(desk->height), width = float(desk->width);
    const float y = from_middle(chunk.y, desk->height);
    for (int i = 0; i < chunk.count; ++i) {
      const float x = from_middle(chunk.first + i, desk->width);
      right[i] = onto_rim(grid_place(r, x, y, width), width);
      down[i] = onto_rim(grid_place(r + 3, x, y, height), height);
    }
  }
};

struct NearestPlaces {
  DAQAKD_INLINE static void run(
      const Desk* desk, int count, const float* __restrict__ down, const float* __restrict__ right,
      int32_t* __restrict__ places) {
    const int pitch = desk->pitch;
    for (int i = 0; i < count; ++i)
      places[i] = int(round_half_even(down[i])) * pitch + int(round_half_even(right[i]));
  }
};

// The top left neighbours' places; down and right become the distances from them.
struct CornerPlaces {
  DAQAKD_INLINE static void run(
      const Desk* desk, int count, float* __restrict__ down, float* __restrict__ right,
      int32_t* __restrict__ places) {
    const int pitch = desk->pitch;
    for (int i = 0; i < count; ++i) {
      const int row = floor_int(down[i]), column = floor_int(right[i]);
      places[i] = row * pitch + column;
      down[i] -= float(row);
      right[i] -= float(column);
    }
  }
};

struct MixCorners {
  DAQAKD_INLINE static void run(
      int count, const uint8_t (*corners)[kChunk], const float* down, const float* right,
      uint8_t* __restrict__ out) {
    for (int i = 0; i < count; ++i) {
      const Corners shares(down[i], right[i]);
      const float sum = shares.sum(corners[0][i], corners[1][i], corners[2][i], corners[3][i]);
      out[i] = uint8_t(int(round_half_even(sum)));
    }
  }
};

inline void fetch(const uint8_t* from, const int32_t* places, int count, uint8_t* to) {
  for (int i = 0; i < count; ++i) to[i] = from[places[i]];
}

// body(chunk, output pixel of channel 0) for all rows of the surrounded pixels.
template <class F>
void each_chunk(Desk& desk, const F& body) {
  desk.surround();
  for (int y = 0; y < desk.height; ++y)
    for (int x = 0; x < desk.width; x += kChunk)
      body(Chunk{y, x, std::min(kChunk, desk.width - x)},
           desk.pixels.get() + int64_t(y) * desk.width + x);
}

inline void fixed(Desk& desk, const int32_t* map) {  // [6]
  const Desk* from = &desk;
  each_chunk(desk, [&](Chunk chunk, uint8_t* out) {
    int32_t places[kChunk];
    run<FixedPlaces>(from, chunk, map, static_cast<int32_t*>(places));
    for (int c = 0; c < 3; ++c) fetch(desk.line(c, 0), places, chunk.count, out + c * desk.area);
  });
}

inline void nearest(Desk& desk, const float* map) {  // [6]
  const Desk* from = &desk;
  each_chunk(desk, [&](Chunk chunk, uint8_t* out) {
    int32_t places[kChunk];
    float down[kChunk], right[kChunk];
    run<GridPositions>(from, chunk, map, static_cast<float*>(down), static_cast<float*>(right));
    run<NearestPlaces>(
        from, chunk.count, static_cast<const float*>(down), static_cast<const float*>(right),
        static_cast<int32_t*>(places));
    for (int c = 0; c < 3; ++c) fetch(desk.line(c, 0), places, chunk.count, out + c * desk.area);
  });
}

inline void bilinear(Desk& desk, const float* map) {  // [6]
  const Desk* from = &desk;
  each_chunk(desk, [&](Chunk chunk, uint8_t* out) {
    int32_t places[kChunk];
    float down[kChunk], right[kChunk];
    uint8_t corners[4][kChunk];
    run<GridPositions>(from, chunk, map, static_cast<float*>(down), static_cast<float*>(right));
    run<CornerPlaces>(
        from, chunk.count, static_cast<float*>(down), static_cast<float*>(right),
        static_cast<int32_t*>(places));
    for (int c = 0; c < 3; ++c) {
      for (int corner = 0; corner < 4; ++corner)
        fetch(desk.line(c, corner / 2) + corner % 2, places, chunk.count, corners[corner]);
      run<MixCorners>(
          chunk.count, static_cast<const uint8_t(*)[kChunk]>(corners),
          static_cast<const float*>(down), static_cast<const float*>(right), out + c * desk.area);
    }
  });
}

}  // namespace daqakd::cpu
