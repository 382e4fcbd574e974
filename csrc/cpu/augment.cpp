#include "../ops.h"

#include <atomic>

#include "augment_geometry.h"
#include "augment_pixels.h"
#include "augment_stages.h"
#include "dispatch.h"
#include "partition.h"

namespace daqakd::cpu {
namespace {

void apply(Workspace& ws, const Plan& plan, int64_t setting) {
  const float* real = plan.real + 6 * setting;
  switch (Kind(plan.kind[setting])) {
    case Kind::identity:
      return;
    case Kind::lut:
      return lut(ws, plan.lut + 256 * setting);
    case Kind::equalize:
      return equalize(ws);
    case Kind::fixed:
      return transform<Fixed>(ws, plan.integer + 6 * setting);
    case Kind::nearest:
      return transform<Nearest>(ws, real);
    case Kind::bilinear:
      return transform<Bilinear>(ws, real);
    case Kind::autocontrast_pil:
      return stretch<true>(ws);
    case Kind::contrast_pil:
      return contrast<true>(ws, real);
    case Kind::color_pil:
      return color<true>(ws, real);
    case Kind::sharpness_pil:
      return sharpen<true>(ws, real);
    case Kind::autocontrast:
      return stretch<false>(ws);
    case Kind::contrast:
      return contrast<false>(ws, real);
    case Kind::color:
      return color<false>(ws, real);
    case Kind::sharpness:
      return sharpen<false>(ws, real);
  }
}

void follow_chain(Workspace& ws, const Plan& plan, const int16_t* setting) {  // [slots]
  for (int slot = 0; slot < plan.slots; ++slot) apply(ws, plan, setting[slot]);
}

void chains(Workspace& ws, const Plan& plan, int64_t row) {
  const int64_t n = 3 * ws.area;
  const int16_t* setting = plan.setting + row * plan.chains * plan.slots;
  uint8_t* original = ws.pixels = ws.images.get();
  if (plan.share == nullptr) return follow_chain(ws, plan, setting);
  for (int c = 0; c < plan.chains; ++c) {
    ws.pixels = original + (1 + c) * n;
    std::memcpy(ws.pixels, original, n);
    follow_chain(ws, plan, setting + c * plan.slots);
  }
  ws.pixels = original;
  run<MixChains>(original, n, plan.share + row * (1 + plan.chains), plan.chains);
}

// Leaves the augmented image in the workspace.
void augment_row(Workspace& ws, const Plan& plan, int64_t row) {
  const uint8_t* image = plan.pixels + plan.index[row] * 3 * ws.area;
  const int64_t top = plan.crop[2 * row], left = plan.crop[2 * row + 1];
  run<Crop>(static_cast<const Workspace*>(&ws), image, top, left, plan.flip[row], ws.images.get());
  chains(ws, plan, row);
  if (plan.erase == nullptr) return;
  const Box box(plan.erase + 4 * row, plan);
  box.each_row(plan, [&](int64_t at, int n) { std::memset(ws.pixels + at, 0, n); });
}

// A thread takes the next few rows when it is done with its last: rows differ in work, and threads
// in what they get of a core. What another thread costs is spread over the work of a row.
template <class F>
void each_row(const Plan& plan, int64_t rows, const F& body) {
  const int64_t work = 3 * plan.area() * (1 + plan.chains * plan.slots);
  const int64_t few = std::max<int64_t>(1, kGrain / work);
  std::atomic<int64_t> next = 0;
  parallel(rows, work, [&](int64_t, int64_t) {
    Workspace ws(plan);
    for (int64_t first; (first = next.fetch_add(few)) < rows;)
      for (int64_t row = first; row < std::min(rows, first + few); ++row) body(ws, row);
  });
}

template <class T>
void unmixed(const Plan& plan, const Writer<T>& writer) {
  each_row(plan, plan.rows, [&](Workspace& ws, int64_t row) {
    augment_row(ws, plan, row);
    writer.write(ws.pixels, row);
  });
}

// All rows first: a row may be the partner of any.
template <class T>
void mixed(const Plan& plan, const Writer<T>& writer, uint8_t* rows) {
  const int64_t n = 3 * plan.area();
  each_row(plan, plan.rows, [&](Workspace& ws, int64_t row) {
    augment_row(ws, plan, row);
    std::memcpy(rows + row * n, ws.pixels, n);
  });
  each_row(plan, plan.outputs, [&](Workspace& ws, int64_t row) {
    const uint8_t *own = rows + row * n, *other = rows + plan.partner[row] * n;
    if (plan.box == nullptr) return writer.write(own, other, plan.weight[row], row);
    uint8_t* pixels = ws.pixels;
    std::memcpy(pixels, own, n);
    const Box box(plan.box + 4 * row, plan);
    box.each_row(plan, [&](int64_t at, int count) { std::memcpy(pixels + at, other + at, count); });
    writer.write(pixels, row);
  });
}

template <class T>
void check_range(const char* name, const T* values, int64_t count, int64_t end) {
  for (int64_t i = 0; i < count; ++i)
    require(
        0 <= values[i] && values[i] < end, name, ": expected values from 0 to ", end - 1, ", got ",
        int64_t(values[i]));
}

// Shares of a mixture; NaN is none.
void check_shares(const char* name, const float* shares, int64_t count) {
  for (int64_t i = 0; shares && i < count; ++i)
    require(
        0 <= shares[i] && shares[i] <= 1, name, ": expected shares from 0 to 1, got ", shares[i]);
}

void check_ranges(const Plan& plan) {
  check_range("index", plan.index, plan.rows, plan.images);
  check_range("setting", plan.setting, plan.rows * plan.chains * plan.slots, plan.settings);
  check_range("kind", plan.kind, plan.settings, int64_t(Kind::sharpness) + 1);
  check_shares("share", plan.share, plan.rows * (1 + plan.chains));
  check_shares("weight", plan.weight, plan.outputs);
  if (plan.partner == nullptr) return;
  require(plan.outputs <= plan.rows, "partner: expected at most a row for each image");
  check_range("partner", plan.partner, plan.outputs, plan.rows);
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
