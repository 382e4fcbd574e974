"""Liger-Kernel's losses, Triton kernels that need a GPU."""

import torch.nn.functional as F
from torch import Tensor

from ..kd_loss import KD_WEIGHT, TEMPERATURE
from ..measure import Provider

OPS = ("kd_loss",)


def _log_softmax(z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    return F.log_softmax(z / TEMPERATURE, 1), F.log_softmax(t / TEMPERATURE, 1)


def _total(divergence: Tensor, z: Tensor, y: Tensor) -> Tensor:
    """Add Liger's cross-entropy, which writes into its input."""
    from liger_kernel.transformers import LigerCrossEntropyLoss

    cross_entropy: Tensor = LigerCrossEntropyLoss()(z.clone(), y)
    return cross_entropy + KD_WEIGHT * TEMPERATURE**2 * divergence


def by_kl(z: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """Return the loss with ``LigerKLDIVLoss``."""
    from liger_kernel.transformers import LigerKLDIVLoss

    divergence = LigerKLDIVLoss(reduction="batchmean", log_target=True)(*_log_softmax(z, t))
    return _total(divergence, z, y)


def by_jsd(z: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """Return the loss with ``LigerJSD``, which at beta 0 is KL(teacher | student)."""
    from liger_kernel.transformers import LigerJSD

    return _total(LigerJSD(beta=0.0)(*_log_softmax(z, t)), z, y)


def providers(op: str, device: str) -> dict[str, Provider]:
    """Return Liger's providers of an op."""
    return {"liger": by_kl, "liger-jsd": by_jsd} if op in OPS and device == "cuda" else {}
