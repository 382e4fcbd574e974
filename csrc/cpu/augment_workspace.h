#pragma once

#include "../formulas/augment.h"

#include <cstring>
#include <memory>

#include "../common/plan.h"
#include "simd.h"

namespace daqakd::cpu {

constexpr int kChunk = 256;  // pixels that go through a pipeline of loops together

// One image on one thread.
struct Workspace {
  explicit Workspace(const Plan& plan)
      : height(plan.height),
        width(plan.width),
        pitch(width + 2 * kBorder),
        area(plan.area()),
        images(new uint8_t[3 * area * (plan.share == nullptr ? 1 : 1 + plan.chains)]),
        spare(new uint8_t[3 * area]),
        bordered(new uint32_t[int64_t(pitch) * (height + 2 * kBorder)]()),
        pixels(images.get()) {}

  // The first pixel inside the border.
  uint32_t* interior() const { return bordered.get() + kBorder * pitch + kBorder; }

  int height, width, pitch;
  int64_t area;
  std::unique_ptr<uint8_t[]> images;     // [1 + chains, 3, height, width], the cropped image first
  std::unique_ptr<uint8_t[]> spare;      // [3, height, width], the smoothed image
  std::unique_ptr<uint32_t[]> bordered;  // [height + 4, width + 4], a pixel's channels in one word
  uint8_t* pixels;                       // [3, height, width], what operations change
};

}  // namespace daqakd::cpu
