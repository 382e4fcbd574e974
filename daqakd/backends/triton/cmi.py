"""The Triton backend of the CMI ops: adapters to ``daqakd.kernels.cmi_*``."""

import torch
from torch import Tensor

from .._layout import in_strides_of
from ._launch import implement, kernels, launch


def _label_rows(labels: Tensor) -> Tensor:
    return (labels.double() if labels.is_floating_point() else labels).contiguous()


def _centroid_rows(centroids: Tensor) -> Tensor:
    """Return float64 centroids whose rows are without gaps; an expanded row is not copied."""
    wide = centroids.double()
    return wide if wide.stride(1) == 1 else wide.contiguous()


@implement
def cmi_update(
    state: Tensor, logits: Tensor, labels: Tensor, weight: Tensor | None, group: Tensor | None
) -> None:
    if logits.numel():
        weight = None if weight is None else weight.double().contiguous()
        group = None if group is None else group.contiguous()
        rows = logits.contiguous(), _label_rows(labels)
        launch(logits, kernels("cmi_update").cmi_update, state, *rows, weight, group)


@implement
def cmi_divergence(logits: Tensor, labels: Tensor, centroids: Tensor) -> Tensor:
    result = torch.empty(len(logits), dtype=torch.float64, device=logits.device)
    if logits.numel():
        inputs = logits.contiguous(), _label_rows(labels), _centroid_rows(centroids)
        launch(logits, kernels("cmi_divergence").cmi_divergence, *inputs, result)
    return result


@implement
def cmi_divergence_backward(
    grad: Tensor, logits: Tensor, labels: Tensor, centroids: Tensor
) -> Tensor:
    z = logits.contiguous()
    dx = torch.empty_like(z)
    if logits.numel():
        inputs = grad.double().contiguous(), z, _label_rows(labels), _centroid_rows(centroids)
        launch(logits, kernels("cmi_divergence").cmi_divergence_backward, *inputs, dx)
    return in_strides_of(dx, torch.empty_like(logits))
