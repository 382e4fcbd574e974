#pragma once

#include "../common/math.h"
#include "augment_desk.h"

// Geometry: where a chunk of output pixels comes from, then the look-up in the rimmed image. A
// whole operation is compiled for each instruction set.
namespace daqakd::cpu {

// Lines [top, top + lines) and columns [left, left + columns), whole lines if several.
struct Chunk {
  int top, lines, left, columns;

  DAQAKD_INLINE int count() const { return lines * columns; }
};

DAQAKD_INLINE void pack(
    const uint8_t* __restrict__ r, const uint8_t* __restrict__ g, const uint8_t* __restrict__ b,
    int count, uint32_t* __restrict__ words) {
  for (int i = 0; i < count; ++i)
    words[i] = uint32_t(r[i]) | uint32_t(g[i]) << 8 | uint32_t(b[i]) << 16;
}

DAQAKD_INLINE void unpack(
    const uint32_t* __restrict__ words, int count, uint8_t* __restrict__ r, uint8_t* __restrict__ g,
    uint8_t* __restrict__ b) {
  for (int i = 0; i < count; ++i) {
    r[i] = uint8_t(words[i]);
    g[i] = uint8_t(words[i] >> 8);
    b[i] = uint8_t(words[i] >> 16);
  }
}

DAQAKD_INLINE void surround(Desk& desk) {
  for (int y = 0; y < desk.height; ++y) {
    const uint8_t* row = desk.pixels + int64_t(y) * desk.width;
    pack(row, row + desk.area, row + 2 * desk.area, desk.width, desk.inside() + y * desk.pitch);
  }
}

// Places are relative to the first pixel inside the rim.
struct Fixed {
  using Number = int32_t;

  DAQAKD_INLINE static void run(
      const Desk& desk, const int32_t* map, Chunk chunk, uint32_t* __restrict__ out) {
    int32_t places[kChunk];
    for (int line = 0; line < chunk.lines; ++line)
      find(desk, map, chunk.top + line, chunk.left, chunk.columns, places + line * chunk.columns);
    const uint32_t* from = desk.inside();
    for (int i = 0; i < chunk.count(); ++i) out[i] = from[places[i]];
  }

  DAQAKD_INLINE static void find(
      const Desk& desk, const int32_t* map, int y, int left, int columns,
      int32_t* __restrict__ places) {
    const int32_t across[3] = {map[0], map[1], map[2]}, down[3] = {map[3], map[4], map[5]};
    const int height = desk.height, width = desk.width, pitch = desk.pitch;
    for (int i = 0; i < columns; ++i) {
      const int row = onto_rim(fixed_place(down, left + i, y), height);
      places[i] = row * pitch + onto_rim(fixed_place(across, left + i, y), width);
    }
  }
};

// Where an output pixel lies in the input, kept within the rim.
struct GridLine {
  DAQAKD_INLINE GridLine(const Desk& desk, const float* map, int y)
      : width(desk.width), height(desk.height), y(from_middle(y, desk.height)) {
    for (int i = 0; i < 6; ++i) this->map[i] = map[i];
  }

  DAQAKD_INLINE float right(int x) const {
    return onto_rim(grid_place(map, from_middle(x, width), y, float(width)), float(width));
  }

  DAQAKD_INLINE float down(int x) const {
    return onto_rim(grid_place(map + 3, from_middle(x, width), y, float(height)), float(height));
  }

  int width, height;
  float y, map[6];
};

struct Nearest {
  using Number = float;

  DAQAKD_INLINE static void run(
      const Desk& desk, const float* map, Chunk chunk, uint32_t* __restrict__ out) {
    int32_t places[kChunk];
    for (int line = 0; line < chunk.lines; ++line)
      find(desk.pitch, GridLine(desk, map, chunk.top + line), chunk.left, chunk.columns,
           places + line * chunk.columns);
    const uint32_t* from = desk.inside();
    for (int i = 0; i < chunk.count(); ++i) out[i] = from[places[i]];
  }

  DAQAKD_INLINE static void find(
      int pitch, const GridLine line, int left, int columns, int32_t* __restrict__ places) {
    for (int i = 0; i < columns; ++i)
      places[i] = int(round_half_even(line.down(left + i))) * pitch +
                  int(round_half_even(line.right(left + i)));
  }
};

struct Bilinear {
  using Number = float;

  DAQAKD_INLINE static void run(
      const Desk& desk, const float* map, Chunk chunk, uint32_t* __restrict__ out) {
    int32_t places[kChunk];
    float down[kChunk], right[kChunk];
    uint32_t upper[2 * kChunk], lower[2 * kChunk];
    for (int line = 0; line < chunk.lines; ++line) {
      const int at = line * chunk.columns;
      find(desk.pitch, GridLine(desk, map, chunk.top + line), chunk.left, chunk.columns,
           places + at, down + at, right + at);
    }
    const uint32_t *above = desk.inside(), *below = above + desk.pitch;
    for (int i = 0; i < chunk.count(); ++i) std::memcpy(upper + 2 * i, above + places[i], 8);
    for (int i = 0; i < chunk.count(); ++i) std::memcpy(lower + 2 * i, below + places[i], 8);
    mix(upper, lower, down, right, chunk.count(), out);
  }

  // The top left neighbours' places, and the distances from them.
  DAQAKD_INLINE static void find(
      int pitch, const GridLine line, int left, int columns, int32_t* __restrict__ places,
      float* __restrict__ down, float* __restrict__ right) {
    for (int i = 0; i < columns; ++i) {
      const float y = line.down(left + i), x = line.right(left + i);
      const int row = floor_int(y), column = floor_int(x);
      places[i] = row * pitch + column;
      down[i] = y - float(row);
      right[i] = x - float(column);
    }
  }

  DAQAKD_INLINE static float channel(uint32_t word, int shift) {
    return float(int(word >> shift & 255));
  }

  // upper, lower: the left and the right neighbour of each pixel.
  DAQAKD_INLINE static void mix(
      const uint32_t* __restrict__ upper, const uint32_t* __restrict__ lower,
      const float* __restrict__ down, const float* __restrict__ right, int count,
      uint32_t* __restrict__ out) {
    for (int i = 0; i < count; ++i) {
      const Corners shares(down[i], right[i]);
      const uint32_t tl = upper[2 * i], tr = upper[2 * i + 1];
      const uint32_t bl = lower[2 * i], br = lower[2 * i + 1];
      uint32_t mixed = 0;
      for (int shift = 0; shift < 24; shift += 8)
        mixed |= uint32_t(int(round_half_even(shares.sum(
                     channel(tl, shift), channel(tr, shift), channel(bl, shift),
                     channel(br, shift)))))
                 << shift;
      out[i] = mixed;
    }
  }
};

// All chunks of the surrounded pixels.
template <class Op>
struct Moved {
  DAQAKD_INLINE static void run(Desk* desk, const typename Op::Number* map) {  // [6]
    const int height = desk->height, width = desk->width;
    const int columns = std::min(kChunk, width), lines = kChunk / columns;
    uint32_t words[kChunk];
    surround(*desk);
    for (int y = 0; y < height; y += lines)
      for (int x = 0; x < width; x += columns) {
        const Chunk chunk{y, std::min(lines, height - y), x, std::min(columns, width - x)};
        Op::run(*desk, map, chunk, words);
        uint8_t* out = desk->pixels + int64_t(y) * width + x;
        unpack(words, chunk.count(), out, out + desk->area, out + 2 * desk->area);
      }
  }
};

template <class Op>
void move(Desk& desk, const typename Op::Number* map) {  // [6]
  run<Moved<Op>>(&desk, map);
}

}  // namespace daqakd::cpu
