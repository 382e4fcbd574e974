#include "../ops.h"
#include "augment_geometry.h"
#include "dispatch.h"
#include "partition.h"

namespace daqakd::cpu {
namespace {

void apply(Desk& desk, const Plan& plan, int64_t setting) {
  const float* real = plan.real + 6 * setting;
  switch (Kind(plan.kind[setting])) {
    case Kind::identity:
      return;
    case Kind::lut:
      return lut(desk, plan.lut + 256 * setting);
    case Kind::equalize:
      return equalize(desk);
    case Kind::fixed:
      return fixed(desk, plan.integer + 6 * setting);
    case Kind::nearest:
      return nearest(desk, real);
    case Kind::bilinear:
      return bilinear(desk, real);
    case Kind::autocontrast_pil:
      return stretch<true>(desk);
    case Kind::contrast_pil:
      return contrast<true>(desk, real);
    case Kind::color_pil:
      return run<Color<true>>(desk.pixels.get(), desk.area, real);
    case Kind::sharpness_pil:
      return sharpen<true>(desk, real);
    case Kind::autocontrast:
      return stretch<false>(desk);
    case Kind::contrast:
      return contrast<false>(desk, real);
    case Kind::color:
      return run<Color<false>>(desk.pixels.get(), desk.area, real);
    case Kind::sharpness:
      return sharpen<false>(desk, real);
  }
}

// pixels[y, x] = image[y + top, x + left], 0 outside; mirrored before it is shifted.
void crop(Desk& desk, const uint8_t* image, const int32_t* corner, bool flip, uint8_t* pixels) {
  const int height = desk.height, width = desk.width;
  const int64_t top = corner[0], left = corner[1];
  std::memset(pixels, 0, 3 * desk.area);
  const int64_t first = std::max<int64_t>(0, -left), last = std::min<int64_t>(width, width - left);
  for (int64_t line = 0; line < 3 * int64_t(height); ++line) {
    const int64_t from = line % height + top;
    if (from < 0 || from >= height || first >= last) continue;
    const uint8_t* source = image + (line - line % height + from) * width;
    uint8_t* row = pixels + line * width;
    if (!flip)
      std::memcpy(row + first, source + first + left, last - first);
    else
      for (int64_t x = first; x < last; ++x) row[width - 1 - x] = source[x + left];
  }
}

struct AddChain {
  DAQAKD_INLINE static void run(
      const uint8_t* __restrict__ pixels, int64_t n, float share, bool first,
      float* __restrict__ total) {
    for (int64_t i = 0; i < n; ++i) total[i] = (first ? 0.0f : total[i]) + share * float(pixels[i]);
  }
};

struct Truncate {
  DAQAKD_INLINE static void run(const float* __restrict__ total, int64_t n, uint8_t* pixels) {
    for (int64_t i = 0; i < n; ++i) pixels[i] = truncated(total[i]);
  }
};

void chains(Desk& desk, const Plan& plan, int64_t row) {
  const int64_t n = 3 * desk.area;
  uint8_t *pixels = desk.pixels.get(), *original = desk.original.get();
  const float* share = plan.share == nullptr ? nullptr : plan.share + row * (1 + plan.chains);
  const int16_t* setting = plan.setting + row * plan.chains * plan.slots;
  std::memcpy(pixels, original, n);
  const auto add = [&](int chain) {
    run<AddChain>(
        static_cast<const uint8_t*>(pixels), n, share[chain], chain == 0, desk.total.get());
  };
  if (share != nullptr) add(0);
  for (int c = 0; c < plan.chains; ++c) {
    if (c > 0) std::memcpy(pixels, original, n);
    for (int s = 0; s < plan.slots; ++s) apply(desk, plan, setting[c * plan.slots + s]);
    if (share != nullptr) add(1 + c);
  }
  if (share != nullptr) run<Truncate>(static_cast<const float*>(desk.total.get()), n, pixels);
}

// The part of a box (left, top, right, bottom) within the image.
struct Box {
  Box(const int32_t* box, const Plan& plan)
      : left(std::max(box[0], 0)),
        top(std::max(box[1], 0)),
        right(std::min(box[2], plan.width)),
        bottom(std::min(box[3], plan.height)) {}

  // body(first pixel, count) for each of its rows, all channels
  template <class F>
  void each_row(const Plan& plan, const F& body) const {
    for (int c = 0; c < 3; ++c)
      for (int y = top; y < bottom && left < right; ++y)
        body(c * plan.area() + int64_t(y) * plan.width + left, right - left);
  }

  int left, top, right, bottom;
};

// Leaves the augmented image on the desk.
void augment_row(Desk& desk, const Plan& plan, int64_t row) {
  const uint8_t* image = plan.pixels + plan.index[row] * 3 * desk.area;
  crop(desk, image, plan.crop + 2 * row, plan.flip[row], desk.original.get());
  chains(desk, plan, row);
  if (plan.erase == nullptr) return;
  const Box box(plan.erase + 4 * row, plan);
  box.each_row(plan, [&](int64_t at, int n) { std::memset(desk.pixels.get() + at, 0, n); });
}

// Writes images: through the values, in the output's dtype and memory order.
template <class T>
struct Writer {
  Writer(const Plan& plan, bool channels_last, T* out)
      : area(plan.area()),
        channel(channels_last ? 1 : plan.area()),
        step(channels_last ? 3 : 1),
        values(plan.values),
        out(out) {
    for (int i = 0; i < 3 * 256; ++i)
      if constexpr (std::is_same_v<T, uint8_t>)
        table[i] = uint8_t(i % 256);
      else
        table[i] = store<T>(Compute<T>(values[i]));
  }

  void write(const uint8_t* pixels, int64_t image) const {
    for (int c = 0; c < 3; ++c) {
      const uint8_t* __restrict__ from = pixels + c * area;
      T* __restrict__ to = out + 3 * area * image + c * channel;
      for (int64_t i = 0; i < area; ++i) to[i * step] = table[256 * c + from[i]];
    }
  }

  // MixUp.
  void write(const uint8_t* pixels, const uint8_t* other, float weight, int64_t image) const {
    if constexpr (!std::is_same_v<T, uint8_t>)
      for (int c = 0; c < 3; ++c) {
        T* to = out + 3 * area * image + c * channel;
        for (int64_t i = 0; i < area; ++i) {
          const float own = weight * values[256 * c + pixels[c * area + i]];
          const float rest = (1.0f - weight) * values[256 * c + other[c * area + i]];
          to[i * step] = store<T>(Compute<T>(own + rest));
        }
      }
  }

  int64_t area, channel, step;
  const float* values;  // [3, 256]
  T* out;               // [outputs, 3, height, width]
  T table[3 * 256];
};

// What another thread costs is spread over the work of a row.
template <class F>
void each_row(const Plan& plan, int64_t rows, const F& body) {
  const int64_t work = 3 * plan.area() * (1 + plan.chains * plan.slots);
  parallel(rows, work, [&](int64_t begin, int64_t end) {
    Desk desk(plan);
    for (int64_t row = begin; row < end; ++row) body(desk, row);
  });
}

template <class T>
void unmixed(const Plan& plan, const Writer<T>& writer) {
  each_row(plan, plan.rows, [&](Desk& desk, int64_t row) {
    augment_row(desk, plan, row);
    writer.write(desk.pixels.get(), row);
  });
}

// All rows first: a row may be the partner of any.
template <class T>
void mixed(const Plan& plan, const Writer<T>& writer, uint8_t* rows) {
  const int64_t n = 3 * plan.area();
  each_row(plan, plan.rows, [&](Desk& desk, int64_t row) {
    augment_row(desk, plan, row);
    std::memcpy(rows + row * n, desk.pixels.get(), n);
  });
  each_row(plan, plan.outputs, [&](Desk& desk, int64_t row) {
    const uint8_t *own = rows + row * n, *other = rows + plan.partner[row] * n;
    if (plan.box == nullptr) return writer.write(own, other, plan.weight[row], row);
    uint8_t* pixels = desk.pixels.get();
    std::memcpy(pixels, own, n);
    const Box box(plan.box + 4 * row, plan);
    box.each_row(plan, [&](int64_t at, int count) { std::memcpy(pixels + at, other + at, count); });
    writer.write(pixels, row);
  });
}

template <class T>
void check_range(const char* name, const T* values, int64_t count, int64_t end) {
  for (int64_t i = 0; i < count; ++i)
    STD_TORCH_CHECK(
        0 <= values[i] && values[i] < end, name, ": expected values from 0 to ", end - 1, ", got ",
        int64_t(values[i]));
}

void check_ranges(const Plan& plan) {
  check_range("index", plan.index, plan.rows, plan.images);
  check_range("setting", plan.setting, plan.rows * plan.chains * plan.slots, plan.settings);
  if (plan.partner == nullptr) return;
  STD_TORCH_CHECK(plan.outputs <= plan.rows, "partner: expected at most a row for each image");
  check_range("partner", plan.partner, plan.outputs, plan.rows);
}

}  // namespace

Tensor augment(
    const Tensor& pixels, const Tensor& index, const Tensor& crop, const Tensor& flip,
    const Tensor& setting, const Tensor& kind, const Tensor& lut, const Tensor& integer,
    const Tensor& real, const std::optional<Tensor>& share, const std::optional<Tensor>& erase,
    const std::optional<Tensor>& partner, const std::optional<Tensor>& box,
    const std::optional<Tensor>& weight, const std::optional<Tensor>& values, ScalarType dtype,
    bool channels_last) {
  PlanReader reader(pixels);
  const Plan plan = read_plan(
      reader, pixels, index, crop, flip, setting, kind, lut, integer, real, share, erase, partner,
      box, weight, values);
  check_ranges(plan);
  Tensor out = empty_images(plan, pixels, dtype, channels_last);
  if (out.numel() == 0) return out;
  const Tensor rows = scratch_rows(plan, pixels);
  const auto follow = [&](auto element) {
    using T = decltype(element);
    const Writer<T> writer(plan, channels_last, mutable_data<T>(out));
    plan.partner == nullptr ? unmixed(plan, writer)
                            : mixed(plan, writer, mutable_data<uint8_t>(rows));
  };
  dtype == ScalarType::Byte ? follow(uint8_t{}) : by_dtype(out, follow);
  return out;
}

}  // namespace daqakd::cpu
