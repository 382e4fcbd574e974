#include <torch/csrc/stable/library.h>

#include <string>

#include "bn_boundary.h"
#include "kd_boundary.h"
#include "ops.h"

#if !defined(DAQAKD_OVERLOAD)
#define DAQAKD_OVERLOAD ".native"
#endif

// Compiled once for each device's library, which registers one overload of every op.
namespace device = daqakd::DAQAKD_DEVICE;

STABLE_TORCH_LIBRARY_IMPL(daqakd, DAQAKD_KEY, m) {
  const auto add = [&](const std::string& op, auto* boxed) {
    m.impl((op + DAQAKD_OVERLOAD).c_str(), boxed);
  };
  add("lsq_forward", TORCH_BOX(&device::lsq_forward));
  add("lsq_backward", TORCH_BOX(&device::lsq_backward));
  add("pact_forward", TORCH_BOX(&device::pact_forward));
  add("pact_backward", TORCH_BOX(&device::pact_backward));
  add("dorefa_activation_forward", TORCH_BOX(&device::dorefa_activation_forward));
  add("dorefa_activation_backward", TORCH_BOX(&device::dorefa_activation_backward));
  add("dorefa_weight_forward", TORCH_BOX(&device::dorefa_weight_forward));
  add("dorefa_weight_backward", TORCH_BOX(&device::dorefa_weight_backward));
  add("ewgs_forward", TORCH_BOX(&device::ewgs_forward));
  add("ewgs_backward", TORCH_BOX(&device::ewgs_backward));
  add("lsqplus_forward", TORCH_BOX(&device::lsqplus_forward));
  add("lsqplus_backward", TORCH_BOX(&device::lsqplus_backward));
  add("seq_forward", TORCH_BOX(&device::seq_forward));
  add("seq_backward", TORCH_BOX(&device::seq_backward));
  add("bn_act_quant_forward", TORCH_BOX(&daqakd::bn_act_quant_forward));
  add("bn_act_quant_backward", TORCH_BOX(&daqakd::bn_act_quant_backward));
  add("cmi_update", TORCH_BOX(&device::cmi_update));
  add("cmi_divergence", TORCH_BOX(&device::cmi_divergence));
  add("cmi_divergence_backward", TORCH_BOX(&device::cmi_divergence_backward));
  add("kd_loss_forward", TORCH_BOX(&daqakd::kd_loss_forward));
  add("kd_loss_backward", TORCH_BOX(&daqakd::kd_loss_backward));
  add("lsq_many_forward", TORCH_BOX(&device::lsq_many_forward));
  add("lsq_many_backward", TORCH_BOX(&device::lsq_many_backward));
  add("dorefa_weight_many_forward", TORCH_BOX(&device::dorefa_weight_many_forward));
  add("dorefa_weight_many_backward", TORCH_BOX(&device::dorefa_weight_many_backward));
  add("ewgs_many_forward", TORCH_BOX(&device::ewgs_many_forward));
  add("ewgs_many_backward", TORCH_BOX(&device::ewgs_many_backward));
  add("codes_pack", TORCH_BOX(&device::codes_pack));
  add("codes_unpack", TORCH_BOX(&device::codes_unpack));
  add("augment", TORCH_BOX(&device::augment));
}
