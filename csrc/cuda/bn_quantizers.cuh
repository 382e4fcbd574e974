#pragma once

#include "../common/bn_arguments.h"
#include "codes.cuh"

// The quantizers of bn_act_quant, whose parameters lie on the device: read() gives one of values.
namespace daqakd::cuda {

struct DeviceNoQuantizer : NoQuantizer<float> {
  __device__ const NoQuantizer<float>& read() const { return *this; }
};

struct DeviceLSQOfValue {
  static constexpr int kSums = LSQOfValue<float>::kSums;
  __device__ LSQOfValue<float> read() const { return {Step<float>(*step), range}; }

  const float* step;  // []
  LSQRange<float> range;
};

struct DevicePACTOfValue {
  static constexpr int kSums = PACTOfValue<float>::kSums;
  __device__ PACTOfValue<float> read() const { return {*alpha, range}; }

  const float* alpha;  // []
  PACTRange<float> range;
};

struct DeviceDoReFaOfValue : DoReFaOfValue<float> {
  __device__ const DoReFaOfValue<float>& read() const { return *this; }
};

struct DeviceEWGSOfValue {
  static constexpr int kSums = EWGSOfValue<float>::kSums;
  __device__ EWGSOfValue<float> read() const {
    return {EWGSRange<float>(*lower, *upper, bits), delta.value()};
  }

  const float *lower, *upper;  // []
  Scalar delta;
  int64_t bits;
};

// The parameters as float32, kept while they are read.
struct QuantizerParameters {
  explicit QuantizerParameters(const QuantizerArguments& given)
      : given(given),
        parameter(as_floats(given.parameter)),
        upper(as_floats(given.upper)),
        delta(as_floats(given.delta_tensor)) {}

  // Calls body with the quantizer.
  template <class F>
  void by_method(const F& body) const {
    switch (given.method) {
      case Method::lsq:
        return body(
            DeviceLSQOfValue{
                data<float>(*parameter),
                lsq_range<float>(given.lowest(), given.highest(), given.ste)});
      case Method::pact:
        return body(
            DevicePACTOfValue{
                data<float>(*parameter), PACTRange<float>(given.bits, given.is_signed)});
      case Method::dorefa:
        return body(DeviceDoReFaOfValue{{DoReFaRange<float>(given.bits, given.is_signed)}});
      case Method::ewgs:
        return body(
            DeviceEWGSOfValue{
                data<float>(*parameter), data<float>(*upper), scalar_of(delta, given.delta),
                given.bits});
      default:
        return body(DeviceNoQuantizer{});
    }
  }

  DeviceCodes codes() const {
    return codes_of(
        given.level() ? parameter : std::nullopt, int64_t(given.method), given.bits,
        given.is_signed);
  }

  const QuantizerArguments& given;
  optional<Tensor> parameter, upper, delta;
};

}  // namespace daqakd::cuda
