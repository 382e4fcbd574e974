#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cxxabi.h>

#include <cmath>
#include <cstdlib>
#include <memory>
#include <sstream>
#include <string>

#include "../common/exp.h"
#include "../common/explog64.h"
#include "../common/math.h"
#include "facts.h"
#include "packing.h"

namespace py = pybind11;

namespace {

using Bytes = py::array_t<uint8_t, py::array::c_style | py::array::forcecast>;

void check_bits(int bits) {
  if (bits < 1 || bits > 8)
    throw py::value_error("bits: expected 1 to 8, got " + std::to_string(bits));
}

Bytes pack(const Bytes& codes, int bits) {
  check_bits(bits);
  Bytes packed(daqakd::packed_size(codes.size(), bits));
  const uint8_t* from = codes.data();
  uint8_t* to = packed.mutable_data();
  bool fits;
  {
    py::gil_scoped_release release;
    fits = daqakd::pack(from, codes.size(), bits, to);
  }
  if (!fits)
    throw py::value_error(
        "codes: expected values below 2^" + std::to_string(bits) +
        "; subtract the lowest code first");
  return packed;
}

Bytes unpack(const Bytes& packed, int bits, py::ssize_t count) {
  check_bits(bits);
  if (count < 0 || packed.size() != daqakd::packed_size(count, bits))
    throw py::value_error(
        "packed: expected " +
        std::to_string(daqakd::packed_size(std::max<py::ssize_t>(count, 0), bits)) + " bytes for " +
        std::to_string(count) + " codes, got " + std::to_string(packed.size()));
  Bytes codes(count);
  const uint8_t* from = packed.data();
  uint8_t* to = codes.mutable_data();
  py::gil_scoped_release release;
  daqakd::unpack(from, count, bits, to);
  return codes;
}

std::string demangle(const std::string& name) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> plain(
      abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status), std::free);
  return status == 0 ? plain.get() : name;
}

py::list kernel_facts() {
  py::list facts;
  std::istringstream lines(kKernels);
  std::string name;
  int architecture, registers, shared, spilled;
  while (lines >> name >> architecture >> registers >> shared >> spilled)
    facts.append(
        py::dict(
            py::arg("name") = demangle(name), py::arg("symbol") = name,
            py::arg("architecture") = architecture, py::arg("registers") = registers,
            py::arg("shared_bytes") = shared, py::arg("spilled_bytes") = spilled));
  return facts;
}

py::dict build_facts() {
  return py::dict(
      py::arg("compiler") = DAQAKD_COMPILER, py::arg("cuda") = DAQAKD_CUDA_VERSION,
      py::arg("architectures") = DAQAKD_ARCHITECTURES);
}

using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;

// The CUDA kernels' division, on the host, for the tests.
Floats quotient(const Floats& x, float step) {
  Floats result(x.size());
  const daqakd::Step<float> s(step);
  for (py::ssize_t i = 0; i < x.size(); ++i)
    result.mutable_data()[i] = daqakd::quotient(x.data()[i], s.value, s.reciprocal);
  return result;
}

// The CPU kernels' own functions, for the tests.
template <class T, class F>
void define(py::module_& m, const char* name, const F& function) {
  using Values = py::array_t<T, py::array::c_style>;
  const auto each = [function](const Values& x) {
    Values result(x.size());
    for (py::ssize_t i = 0; i < x.size(); ++i) result.mutable_data()[i] = function(x.data()[i]);
    return result;
  };
  m.def(name, each, py::arg("x").noconvert());
}

template <class T>
void define_functions(py::module_& m) {
  define<T>(m, "exp", [](T x) { return daqakd::exp_of(x); });
  define<T>(m, "log", [](T x) { return daqakd::log_of(x); });
}

}  // namespace

PYBIND11_MODULE(_host, m) {
  m.doc() = "Host-only helpers: packed codes, and what the build knows about itself.";
  m.def("pack", &pack, py::arg("codes"), py::arg("bits"));
  m.def("unpack", &unpack, py::arg("packed"), py::arg("bits"), py::arg("count"));
  m.def("build_facts", &build_facts);
  m.def("kernel_facts", &kernel_facts);
  m.def("quotient", &quotient, py::arg("x"), py::arg("step"));
  define_functions<float>(m);
  define_functions<double>(m);
  define<double>(m, "exp64", [](double x) { return daqakd::exp64(x); });
  define<double>(m, "log64", [](double x) { return daqakd::log64(x); });
  define<double>(m, "log1p", [](double x) { return daqakd::log1p64(x); });
}
