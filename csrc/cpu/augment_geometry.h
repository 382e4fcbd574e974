#pragma once

#include "../common/math.h"
#include "augment_workspace.h"

// Geometry: where a chunk of output pixels comes from, then the look-up in the bordered image. A
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

DAQAKD_INLINE void pack_interior(Workspace& ws) {
  for (int y = 0; y < ws.height; ++y) {
    const uint8_t* row = ws.pixels + int64_t(y) * ws.width;
    pack(row, row + ws.area, row + 2 * ws.area, ws.width, ws.interior() + y * ws.pitch);
  }
}

// Offsets are relative to the first pixel inside the border.
struct Fixed {
  using Number = int32_t;

  DAQAKD_INLINE static void run(
      const Workspace& ws, const int32_t* map, Chunk chunk, uint32_t* __restrict__ out) {
    int32_t offsets[kChunk];
    for (int line = 0; line < chunk.lines; ++line)
      find(ws, map, chunk.top + line, chunk.left, chunk.columns, offsets + line * chunk.columns);
    const uint32_t* from = ws.interior();
    for (int i = 0; i < chunk.count(); ++i) out[i] = from[offsets[i]];
  }

  DAQAKD_INLINE static void find(
      const Workspace& ws, const int32_t* map, int y, int left, int columns,
      int32_t* __restrict__ offsets) {
    const int32_t across[3] = {map[0], map[1], map[2]}, down[3] = {map[3], map[4], map[5]};
    const int height = ws.height, width = ws.width, pitch = ws.pitch;
    for (int i = 0; i < columns; ++i) {
      const int row = clamp_to_border(fixed_position(down, left + i, y), height);
      offsets[i] = row * pitch + clamp_to_border(fixed_position(across, left + i, y), width);
    }
  }
};

// Where an output pixel lies in the input, kept within the border.
struct GridLine {
  DAQAKD_INLINE GridLine(const Workspace& ws, const float* map, int y)
      : width(ws.width), height(ws.height), y(from_middle(y, ws.height)) {
    for (int i = 0; i < 6; ++i) this->map[i] = map[i];
  }

  DAQAKD_INLINE float right(int x) const {
    return clamp_to_border(
        grid_position(map, from_middle(x, width), y, float(width)), float(width));
  }

  DAQAKD_INLINE float down(int x) const {
    return clamp_to_border(
        grid_position(map + 3, from_middle(x, width), y, float(height)), float(height));
  }

  int width, height;
  float y, map[6];
};

struct Nearest {
  using Number = float;

  DAQAKD_INLINE static void run(
      const Workspace& ws, const float* map, Chunk chunk, uint32_t* __restrict__ out) {
    int32_t offsets[kChunk];
    for (int line = 0; line < chunk.lines; ++line)
      find(
          ws.pitch, GridLine(ws, map, chunk.top + line), chunk.left, chunk.columns,
          offsets + line * chunk.columns);
    const uint32_t* from = ws.interior();
    for (int i = 0; i < chunk.count(); ++i) out[i] = from[offsets[i]];
  }

  DAQAKD_INLINE static void find(
      int pitch, const GridLine line, int left, int columns, int32_t* __restrict__ offsets) {
    for (int i = 0; i < columns; ++i)
      offsets[i] = int(round_half_even(line.down(left + i))) * pitch +
                   int(round_half_even(line.right(left + i)));
  }
};

struct Bilinear {
  using Number = float;

  DAQAKD_INLINE static void run(
      const Workspace& ws, const float* map, Chunk chunk, uint32_t* __restrict__ out) {
    int32_t offsets[kChunk];
    float down[kChunk], right[kChunk];
    uint32_t upper[2 * kChunk], lower[2 * kChunk];
    for (int line = 0; line < chunk.lines; ++line) {
      const int at = line * chunk.columns;
      find(
          ws.pitch, GridLine(ws, map, chunk.top + line), chunk.left, chunk.columns, offsets + at,
          down + at, right + at);
    }
    const uint32_t *above = ws.interior(), *below = above + ws.pitch;
    for (int i = 0; i < chunk.count(); ++i) std::memcpy(upper + 2 * i, above + offsets[i], 8);
    for (int i = 0; i < chunk.count(); ++i) std::memcpy(lower + 2 * i, below + offsets[i], 8);
    mix(upper, lower, down, right, chunk.count(), out);
  }

  // The top left neighbours' offsets, and the distances from them.
  DAQAKD_INLINE static void find(
      int pitch, const GridLine line, int left, int columns, int32_t* __restrict__ offsets,
      float* __restrict__ down, float* __restrict__ right) {
    for (int i = 0; i < columns; ++i) {
      const float y = line.down(left + i), x = line.right(left + i);
      const int row = floor_int(y), column = floor_int(x);
      offsets[i] = row * pitch + column;
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
      const Corners corners(down[i], right[i]);
      const uint32_t tl = upper[2 * i], tr = upper[2 * i + 1];
      const uint32_t bl = lower[2 * i], br = lower[2 * i + 1];
      uint32_t mixed = 0;
      for (int shift = 0; shift < 24; shift += 8)
        mixed |= uint32_t(
                     int(round_half_even(corners.sum(
                         channel(tl, shift), channel(tr, shift), channel(bl, shift),
                         channel(br, shift)))))
                 << shift;
      out[i] = mixed;
    }
  }
};

// All chunks of an image, looked up in its bordered copy.
template <class Op>
struct Transform {
  DAQAKD_INLINE static void run(Workspace* ws, const typename Op::Number* map) {  // [6]
    const int height = ws->height, width = ws->width;
    const int columns = std::min(kChunk, width), lines = kChunk / columns;
    uint32_t words[kChunk];
    pack_interior(*ws);
    for (int y = 0; y < height; y += lines)
      for (int x = 0; x < width; x += columns) {
        const Chunk chunk{y, std::min(lines, height - y), x, std::min(columns, width - x)};
        Op::run(*ws, map, chunk, words);
        uint8_t* out = ws->pixels + int64_t(y) * width + x;
        unpack(words, chunk.count(), out, out + ws->area, out + 2 * ws->area);
      }
  }
};

template <class Op>
void transform(Workspace& ws, const typename Op::Number* map) {  // [6]
  run<Transform<Op>>(&ws, map);
}

}  // namespace daqakd::cpu
