#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include <cstdint>
#include <initializer_list>

#include "../common/arguments.h"
#include "device.cuh"
#include "pack.cuh"

namespace daqakd::cuda {

// The device of `x` made current, and its current stream.
class Launch {
 public:
  explicit Launch(const Tensor& x) : guard_(x.get_device_index()) {
    void* stream = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(
        aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  template <class... Parameters, class... Args>
  void operator()(void (*kernel)(Parameters...), int64_t blocks, dim3 threads, Args... args) const {
    sharing(kernel, blocks, threads, 0, args...);
  }

  // With `bytes` of shared memory per block, besides what the kernel declares.
  template <class... Parameters, class... Args>
  void sharing(
      void (*kernel)(Parameters...), int64_t blocks, dim3 threads, int64_t bytes,
      Args... args) const {
    require(blocks < (int64_t(1) << 31), "x: too large for one launch");
    DAQAKD_LAUNCH(kernel, dim3(unsigned(blocks)), threads, size_t(bytes), stream_, args...);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  cudaStream_t stream() const { return stream_; }
  // Whether a block can have `bytes` of shared memory, `all` with what the kernel declares. Above
  // 48 KB the kernel's attribute must be raised first.
  template <class... Parameters>
  bool can_share(void (*kernel)(Parameters...), int64_t bytes, int64_t all) const {
    if (all <= 48 * 1024) return true;
    int device = 0, most = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    return all <= most &&
           cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)) ==
               cudaSuccess;
  }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
};

inline bool aligned(std::initializer_list<const void*> addresses) {
  for (const void* address : addresses)
    if (reinterpret_cast<uintptr_t>(address) % 16 != 0) return false;
  return true;
}

// Calls body with a value of the element type of `x`.
template <class F>
void by_dtype(const Tensor& x, const F& body) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return body(float{});
    case ScalarType::Half:
      return body(__half{});
    case ScalarType::BFloat16:
      return body(__nv_bfloat16{});
    default:
      require(
          false, "x: expected float16, bfloat16 or float32 on cuda, got ",
          name_of(x.scalar_type()));
  }
}

}  // namespace daqakd::cuda
