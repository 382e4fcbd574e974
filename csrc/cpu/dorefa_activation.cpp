#include "../formulas/dorefa.h"

#include "../common/arguments.h"
#include "../ops.h"
#include "backward.h"
#include "dispatch.h"

namespace daqakd::cpu {

tuple<Tensor, Tensor> dorefa_activation_forward(const Tensor& x, int64_t bits, bool is_signed) {
  check_dorefa_activation(x, bits, is_signed);
  const Tensor input = dense(x);
  Tensor y = empty_as(input), mask = empty_mask(x, 1);
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    using C = Compute<T>;
    const C unused = 0;
    map<T>(
        view_of(input, std::nullopt), data<T>(input), &unused, mutable_data<T>(y),
        mutable_data<uint8_t>(mask), DoReFaActivation<C>(DoReFaRange<C>(bits, is_signed)));
  });
  return {y, mask};
}

Tensor dorefa_activation_backward(const Tensor& grad, const Tensor& mask) {
  check_dorefa_activation_backward(grad, mask);
  const Tensor g = dense(grad);
  Tensor dx = empty_as(g);
  by_dtype(grad, [&](auto element) {
    using T = decltype(element);
    using C = Compute<T>;
    const C unused = 0;
    backward<T>(
        view_of(g, std::nullopt), data<T>(g), Codes<1, C>{data<uint8_t>(mask), 0}, &unused,
        mutable_data<T>(dx), {}, 1.0, DoReFaActivationBackward<C>{});
  });
  return dx;
}

}  // namespace daqakd::cpu
