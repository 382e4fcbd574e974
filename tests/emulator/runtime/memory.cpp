#include <link.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/c/shim.h>

#include <cstring>
#include <unordered_map>

#include "state.h"

// What memory there is: the library's own segments, and the tensors of the running op. The sources
// reach torch's C functions by the names below (see build.py), so each tensor whose address they
// take is known from then on until its handle goes.
namespace emulator {
namespace {

constexpr int64_t kMostPoison = int64_t(1) << 30;  // bytes: larger tensors are not touched

std::unordered_map<AtenTensorHandle, Range> tensors;
std::unordered_map<AtenTensorHandle, Epoch> births;  // of those made here
std::vector<Range> segments;

thread_local volatile char anchor;  // makes the loader set up the thread-local block

int take_segments(dl_phdr_info* info, size_t, void* code) {
  const auto begin_of = [&](const auto& header) { return info->dlpi_addr + header.p_vaddr; };
  bool own = false;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& header = info->dlpi_phdr[i];
    own |= header.p_type == PT_LOAD && uintptr_t(code) - begin_of(header) < header.p_memsz;
  }
  if (!own) return 0;
  segments.clear();
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& header = info->dlpi_phdr[i];
    const uintptr_t begin = begin_of(header), block = uintptr_t(info->dlpi_tls_data);
    if (header.p_type == PT_LOAD)
      segments.push_back({begin, begin + header.p_memsz, bool(header.p_flags & PF_W), 0});
    if (header.p_type == PT_TLS) device.static_shared = {block, block + header.p_memsz, true, 0};
  }
  return 1;
}

// From the first to the last element in memory.
size_t bytes_of(AtenTensorHandle tensor) {
  int64_t dim, *sizes, *strides, last = 1;
  int32_t dtype;
  aoti_torch_get_dim(tensor, &dim);
  aoti_torch_get_sizes(tensor, &sizes);
  aoti_torch_get_strides(tensor, &strides);
  aoti_torch_get_dtype(tensor, &dtype);
  for (int64_t d = 0; d < dim; ++d) {
    if (sizes[d] == 0) return 0;
    last += (sizes[d] - 1) * strides[d];
  }
  return last * aoti_torch_dtype_element_size(dtype);
}

void know(AtenTensorHandle tensor, const void* data, bool writable) {
  const auto birth = births.find(tensor);
  Range& range = tensors[tensor];
  range.begin = uintptr_t(data), range.end = range.begin + bytes_of(tensor);
  range.writable |= writable;
  range.birth = birth == births.end() ? 0 : birth->second;
}

void make_undefined(AtenTensorHandle tensor) {
  void* data;
  aoti_torch_get_data_ptr(tensor, &data);
  const size_t bytes = bytes_of(tensor);
  births[tensor] = int64_t(bytes) < kMostPoison ? ++device.epoch : 0;
  if (births[tensor] != 0) memset(data, 0xff, bytes);
}

}  // namespace

std::vector<Range> tensor_ranges() {
  std::vector<Range> found;
  for (const auto& [handle, range] : tensors) found.push_back(range);
  return found;
}

void find_segments(const void* code) {
  anchor = 1;
  dl_iterate_phdr(take_segments, const_cast<void*>(code));
}

const Range* segment_of(uintptr_t first, uintptr_t last) {
  for (const Range& segment : segments)
    if (segment.holds(first, last)) return &segment;
  return nullptr;
}

void forget_births() {
  for (auto& [handle, birth] : births) birth = 0;
  for (auto& [handle, range] : tensors) range.birth = 0;
}

int64_t living_tensors() { return int64_t(births.size()); }

}  // namespace emulator

#define EMULATED_SHIM extern "C" __attribute__((visibility("hidden"))) AOTITorchError

EMULATED_SHIM emulated_get_data_ptr(AtenTensorHandle tensor, void** data) {
  if (const auto error = aoti_torch_get_data_ptr(tensor, data)) return error;
  emulator::know(tensor, *data, true);
  return AOTI_TORCH_SUCCESS;
}

EMULATED_SHIM emulated_get_mutable_data_ptr(AtenTensorHandle tensor, void** data) {
  if (const auto error = torch_get_mutable_data_ptr(tensor, data)) return error;
  emulator::know(tensor, *data, true);
  return AOTI_TORCH_SUCCESS;
}

EMULATED_SHIM emulated_get_const_data_ptr(AtenTensorHandle tensor, const void** data) {
  if (const auto error = torch_get_const_data_ptr(tensor, data)) return error;
  emulator::know(tensor, *data, false);
  return AOTI_TORCH_SUCCESS;
}

EMULATED_SHIM emulated_delete_tensor(AtenTensorHandle tensor) {
  emulator::tensors.erase(tensor);
  emulator::births.erase(tensor);
  return aoti_torch_delete_tensor_object(tensor);
}

EMULATED_SHIM emulated_empty_strided(
    int64_t dim, const int64_t* sizes, const int64_t* strides, int32_t dtype, int32_t device,
    int32_t index, AtenTensorHandle* result) {
  if (const auto error =
          aoti_torch_empty_strided(dim, sizes, strides, dtype, device, index, result))
    return error;
  emulator::make_undefined(*result);
  return AOTI_TORCH_SUCCESS;
}

EMULATED_SHIM emulated_get_stream(int32_t, void** stream) {
  *stream = nullptr;
  return AOTI_TORCH_SUCCESS;
}

EMULATED_SHIM emulated_create_guard(int32_t, void** guard) {
  *guard = nullptr;
  return AOTI_TORCH_SUCCESS;
}

EMULATED_SHIM emulated_delete_guard(void*) { return AOTI_TORCH_SUCCESS; }
