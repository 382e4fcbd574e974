"""The distillation loss, from both logits to the student's gradient."""

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..backends import can_run
from ..functional import kd_loss
from .measure import Case, Inputs, Provider
from .quantizer import GRADIENT_EPS, compiled
from .roofline import Traffic

TEMPERATURE, KD_WEIGHT = 4.0, 2.0


def eager(z: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """Return the loss by PyTorch's own losses, as KD repositories write it."""
    student, teacher = F.log_softmax(z / TEMPERATURE, 1), F.log_softmax(t / TEMPERATURE, 1)
    divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return F.cross_entropy(z, y) + KD_WEIGHT * TEMPERATURE**2 * divergence


def in_probabilities(z: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """Return the loss with the teacher's probabilities as the target, the other common form."""
    student, teacher = F.log_softmax(z / TEMPERATURE, 1), F.softmax(t / TEMPERATURE, 1)
    divergence = F.kl_div(student, teacher, reduction="batchmean")
    return F.cross_entropy(z, y) + KD_WEIGHT * TEMPERATURE**2 * divergence


def ours(
    z: Tensor, t: Tensor, y: Tensor, recompute: bool = False, backend: str | None = None
) -> Tensor:
    """Return the loss by our op, whose defaults are the same settings."""
    loss: Tensor = kd_loss(z, t, y, recompute=recompute, backend=backend)
    return loss


class KDLossBenchmark:
    """The loss and its gradient; a form is the number of classes."""

    op = "kd_loss"
    forms = ("10", "100", "1000", "32000")
    size_unit: Literal["elements"] = "elements"
    traffic = Traffic(3)

    def providers(self, device: str) -> dict[str, Provider]:
        """Return the providers that can run on ``device``, ours last."""
        found: dict[str, Provider] = {"eager": eager, "eager-p": in_probabilities}
        found["compile"] = compiled(eager)
        for backend in ("reference", "triton", "native"):
            if can_run("kd_loss", backend, device, torch.float32) is None:
                found[backend] = partial(ours, backend=backend)
        found["recompute"] = partial(ours, recompute=True)
        return found

    def case(self, size: int, dtype: torch.dtype, form: str, device: str) -> Case:
        """Return loss and gradient of as many rows as fit into ``size`` elements, at least one."""
        classes = int(form)
        shape = max(1, size // classes), classes
        return Case(
            op=self.op,
            numel=torch.Size(shape).numel(),
            dtype=dtype,
            form=form,
            device=device,
            bind=bind,
            make=partial(make, shape, dtype, device),
            verify=verify,
            traffic=self.traffic,
        )


def make(shape: tuple[int, int], dtype: torch.dtype, device: str) -> Inputs:
    """Return student's and teacher's logits of ``shape``, labels, and the loss's gradient."""
    z, t = ((3 * torch.randn(shape, device=device)).to(dtype) for _ in range(2))
    y = torch.randint(shape[1], shape[:1], device=device)
    return z.requires_grad_(), t, y, torch.ones((), device=device)


def bind(provider: Provider) -> Provider:
    """Return a call that gives the loss and the student's gradient."""

    def run(z: Tensor, t: Tensor, y: Tensor, one: Tensor) -> tuple[Tensor, Tensor]:
        loss = provider(z, t, y)
        return loss, *torch.autograd.grad(loss, z, one.to(loss.dtype))

    return run


def verify(results: tuple[Tensor, Tensor], inputs: Inputs) -> str | None:
    """Return what is wrong with the loss or the gradient, or None."""
    z, t = (x.detach().double() for x in inputs[:2])
    loss = eager(z.requires_grad_(), t, inputs[2])
    (dz,) = torch.autograd.grad(loss, z)
    eps = torch.finfo(results[1].dtype).eps
    if not (results[0].double() - loss).abs() <= GRADIENT_EPS * eps * loss:
        return "its values are wrong"
    # the gradient is a difference of probabilities: errors are of the largest entry's size
    right = (results[1].double() - dz).abs() <= GRADIENT_EPS * eps * dz.abs().max()
    return None if right.all() else "its input gradient is wrong"


KD_LOSS = KDLossBenchmark()
