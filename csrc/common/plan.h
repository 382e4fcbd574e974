#pragma once

#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <initializer_list>
#include <vector>

#include "check.h"
#include "inline.h"

namespace daqakd {

// A batch's augmentation, as daqakd/functional/augment.py describes it; null is None.
struct Plan {
  const uint8_t* pixels;   // [images, 3, height, width]
  const int64_t* index;    // [rows]
  const int32_t* crop;     // [rows, 2]
  const uint8_t* flip;     // [rows], not 0 where mirrored
  const int16_t* setting;  // [rows, chains, slots]
  const int8_t* kind;      // [settings]
  const uint8_t* lut;      // [settings, 256]
  const int32_t* integer;  // [settings, 6]
  const float* real;       // [settings, 6]
  const float* share;      // [rows, 1 + chains]
  const int32_t* erase;    // [rows, 4]
  const int64_t* partner;  // [outputs]
  const int32_t* box;      // [outputs, 4]
  const float* weight;     // [outputs]
  const float* values;     // [3, 256]
  int64_t images, rows, outputs, settings;
  int chains, slots, height, width;

  DAQAKD_INLINE int64_t area() const { return int64_t(height) * width; }
};

constexpr int64_t kMaxArea = int64_t(1) << 28;  // places in an image are 32-bit numbers

// Checks the tensors of a plan, and keeps what it had to copy.
class PlanReader {
 public:
  explicit PlanReader(const Tensor& pixels) : pixels_(pixels) {}

  template <class T>
  const T* take(
      const char* name, const Tensor& x, ScalarType type, std::initializer_list<int64_t> sizes) {
    require(
        x.scalar_type() == type && x.dim() == int64_t(sizes.size()) &&
            std::equal(sizes.begin(), sizes.end(), x.sizes().begin()),
        name, ": its dtype or shape does not fit the plan");
    require(x.device() == pixels_.device(), name, ": is on another device than pixels; move it");
    check_tensor(name, x);
    kept_.push_back(x.is_contiguous() ? x : torch::stable::contiguous(x));
    return data<T>(kept_.back());
  }

  template <class T>
  const T* take(
      const char* name, const optional<Tensor>& x, ScalarType type,
      std::initializer_list<int64_t> sizes) {
    return x.has_value() ? take<T>(name, *x, type, sizes) : nullptr;
  }

 private:
  const Tensor& pixels_;
  std::vector<Tensor> kept_;
};

inline Plan read_plan(
    PlanReader& reader, const Tensor& pixels, const Tensor& index, const Tensor& crop,
    const Tensor& flip, const Tensor& setting, const Tensor& kind, const Tensor& lut,
    const Tensor& integer, const Tensor& real, const optional<Tensor>& share,
    const optional<Tensor>& erase, const optional<Tensor>& partner, const optional<Tensor>& box,
    const optional<Tensor>& weight, const optional<Tensor>& values) {
  require(pixels.dim() == 4 && setting.dim() == 3, "pixels, setting: expected 4 and 3 dimensions");
  const int64_t images = pixels.size(0), height = pixels.size(2), width = pixels.size(3);
  require(
      height * width <= kMaxArea, "pixels: expected at most 2^28 per image, got ", height, " x ",
      width);
  const int64_t rows = index.numel(), chains = setting.size(1), slots = setting.size(2);
  const int64_t count = kind.numel(), outputs = partner.has_value() ? partner->numel() : rows;
  require(share.has_value() || chains == 1, "share: None allows one chain, got ", chains);
  require(
      box.has_value() || !partner.has_value() || (weight.has_value() && values.has_value()),
      "weight: a partner without a box needs it, and values");
  constexpr auto kByte = ScalarType::Byte, kInt = ScalarType::Int, kFloat = ScalarType::Float;
  return {
      reader.take<uint8_t>("pixels", pixels, kByte, {images, 3, height, width}),
      reader.take<int64_t>("index", index, ScalarType::Long, {rows}),
      reader.take<int32_t>("crop", crop, kInt, {rows, 2}),
      reader.take<uint8_t>("flip", flip, ScalarType::Bool, {rows}),
      reader.take<int16_t>("setting", setting, ScalarType::Short, {rows, chains, slots}),
      reader.take<int8_t>("kind", kind, ScalarType::Char, {count}),
      reader.take<uint8_t>("lut", lut, kByte, {count, 256}),
      reader.take<int32_t>("integer", integer, kInt, {count, 6}),
      reader.take<float>("real", real, kFloat, {count, 6}),
      reader.take<float>("share", share, kFloat, {rows, 1 + chains}),
      reader.take<int32_t>("erase", erase, kInt, {rows, 4}),
      reader.take<int64_t>("partner", partner, ScalarType::Long, {outputs}),
      reader.take<int32_t>(
          "box", partner.has_value() ? box : optional<Tensor>(), kInt, {outputs, 4}),
      reader.take<float>("weight", weight, kFloat, {outputs}),
      reader.take<float>("values", values, kFloat, {3, 256}),
      images,
      rows,
      outputs,
      count,
      int(chains),
      int(slots),
      int(height),
      int(width)};
}

inline bool is_written(ScalarType type) {
  return type == ScalarType::Byte || type == ScalarType::Half || type == ScalarType::BFloat16 ||
         type == ScalarType::Float || type == ScalarType::Double;
}

// The output, [outputs, 3, height, width].
inline Tensor empty_images(
    const Plan& plan, const Tensor& model, ScalarType type, bool channels_last) {
  require(
      is_written(type) && (type == ScalarType::Byte) == (plan.values == nullptr),
      "dtype: uint8 needs a plan without values, float16, bfloat16, float32 and float64 one with; ",
      "got ", name_of(type));
  const int64_t sizes[4] = {plan.outputs, 3, plan.height, plan.width};
  const int64_t strides[4] = {3 * plan.area(), 1, 3 * int64_t(plan.width), 3};
  if (channels_last) return empty_strided(model, sizes, strides, 4, type);
  return empty(model, sizes, 4, type);
}

// Augmented rows as bytes, for partners to read; nothing without partners.
inline Tensor scratch_rows(const Plan& plan, const Tensor& model) {
  const int64_t size = plan.partner == nullptr ? 0 : plan.rows * 3 * plan.area();
  return empty(model, &size, 1, ScalarType::Byte);
}

}  // namespace daqakd
