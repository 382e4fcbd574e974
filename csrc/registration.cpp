#include <torch/csrc/stable/library.h>

#include "kd_boundary.h"
#include "ops.h"

// Compiled once for each device's library.
namespace device = daqakd::DAQAKD_DEVICE;

STABLE_TORCH_LIBRARY_IMPL(daqakd, DAQAKD_KEY, m) {
  m.impl("lsq_forward.native", TORCH_BOX(&device::lsq_forward));
  m.impl("lsq_backward.native", TORCH_BOX(&device::lsq_backward));
  m.impl("pact_forward.native", TORCH_BOX(&device::pact_forward));
  m.impl("pact_backward.native", TORCH_BOX(&device::pact_backward));
  m.impl("dorefa_activation_forward.native", TORCH_BOX(&device::dorefa_activation_forward));
  m.impl("dorefa_activation_backward.native", TORCH_BOX(&device::dorefa_activation_backward));
  m.impl("dorefa_weight_forward.native", TORCH_BOX(&device::dorefa_weight_forward));
  m.impl("dorefa_weight_backward.native", TORCH_BOX(&device::dorefa_weight_backward));
  m.impl("ewgs_forward.native", TORCH_BOX(&device::ewgs_forward));
  m.impl("ewgs_backward.native", TORCH_BOX(&device::ewgs_backward));
  m.impl("cmi_update.native", TORCH_BOX(&device::cmi_update));
  m.impl("cmi_divergence.native", TORCH_BOX(&device::cmi_divergence));
  m.impl("cmi_divergence_backward.native", TORCH_BOX(&device::cmi_divergence_backward));
  m.impl("kd_loss_forward.native", TORCH_BOX(&daqakd::kd_loss_forward));
  m.impl("kd_loss_backward.native", TORCH_BOX(&daqakd::kd_loss_backward));
  m.impl("lsq_many_forward.native", TORCH_BOX(&device::lsq_many_forward));
  m.impl("lsq_many_backward.native", TORCH_BOX(&device::lsq_many_backward));
  m.impl("dorefa_weight_many_forward.native", TORCH_BOX(&device::dorefa_weight_many_forward));
  m.impl("dorefa_weight_many_backward.native", TORCH_BOX(&device::dorefa_weight_many_backward));
  m.impl("ewgs_many_forward.native", TORCH_BOX(&device::ewgs_many_forward));
  m.impl("ewgs_many_backward.native", TORCH_BOX(&device::ewgs_many_backward));
  m.impl("augment.native", TORCH_BOX(&device::augment));
}
