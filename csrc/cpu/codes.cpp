#include "codes.h"

#include "../ops.h"
#include "dispatch.h"

namespace daqakd::cpu {
namespace {

template <class T>
struct FindValues {
  using C = Compute<T>;

  DAQAKD_INLINE static void run(const uint8_t* codes, int64_t n, const CodeGrid<C>* grid, T* y) {
    C buffer[kBlock];
    const CodeGrid<C> own = *grid;
    for (int64_t first = 0; first < n; first += kBlock) {
      const int64_t count = std::min<int64_t>(kBlock, n - first);
      const uint8_t* __restrict__ from = codes + first;
      C* __restrict__ out = target(y + first, buffer);
      for (int64_t i = 0; i < count; ++i) out[i] = own.value(C(from[i]));
      narrow(out, count, y + first);
    }
  }
};

template <int kBits>
struct UnpackMask {
  DAQAKD_INLINE static void run(
      const uint8_t* __restrict__ mask, int64_t bytes, uint8_t* __restrict__ codes) {
    for (int64_t i = 0; i < bytes; ++i) unpack_byte<kBits>(mask[i], codes + i * (8 / kBits));
  }
};

}  // namespace

Tensor codes_pack(
    const Tensor& y, const optional<Tensor>& parameter, int64_t method, int64_t bits,
    bool is_signed) {
  check_codes_pack(y, parameter, method, bits, is_signed);
  const Tensor input = dense(y);
  Tensor codes = empty_mask(y, slot_bits(bits));
  by_dtype(y, [&](auto element) {
    using T = decltype(element);
    const CodePacker<T> packer{
        grid_of<Compute<T>>(parameter, method, bits, is_signed), slot_bits(bits), data<T>(input),
        mutable_data<uint8_t>(codes)};
    packer.pack_all(y.numel());
  });
  return codes;
}

Tensor codes_unpack(
    const Tensor& codes, const optional<Tensor>& parameter, int64_t method, int64_t bits,
    bool is_signed, int64_t count, ScalarType dtype) {
  check_codes_unpack(codes, parameter, method, bits, is_signed, count, dtype);
  Tensor y = empty(codes, &count, 1, dtype);
  by_dtype(y, [&](auto element) {
    using T = decltype(element);
    const auto grid = grid_of<Compute<T>>(parameter, method, bits, is_signed);
    by_slot(slot_bits(bits), [&](auto slot) {
      each_segment(count, [&](int64_t first, int64_t n) {
        uint8_t buffer[kSegment];
        const uint8_t* from = data<uint8_t>(codes) + first * slot / 8;
        run<UnpackMask<slot>>(from, mask_size(n, slot), +buffer);
        run<FindValues<T>>(
            static_cast<const uint8_t*>(buffer), n, &grid, mutable_data<T>(y) + first);
      });
    });
  });
  return y;
}

}  // namespace daqakd::cpu
