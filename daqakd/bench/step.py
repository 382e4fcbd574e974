"""A training step of a W2A2 ResNet-20: what quantizing costs beside the full-precision step."""

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from ..backends import can_run, use_backend
from ..models import build
from ..quant import calibrate, quantize
from .measure import Case, Inputs, Provider

CLASSES, SIDE = 10, 32
# relative error allowed in the loss: a value on a tie may be rounded to either side
TOLERANCE = 1e-3


class StepBenchmark:
    """Forward, loss, backward and SGD; a form is a method of ``quantize``."""

    op = "step"
    forms = ("lsq", "pact", "dorefa", "ewgs")
    size_unit: Literal["images"] = "images"

    def providers(self, device: str) -> dict[str, Provider]:
        """Return the providers that can run on ``device``: the plain model, the student by backend.

        A provider gets both models and the batch, and returns the one it trained and its loss.
        """
        found: dict[str, Provider] = {"fp32": lambda plain, student, *batch: step(plain, *batch)}
        for backend in ("reference", "triton", "native"):
            if can_run("lsq", backend, device, torch.float32) is None:
                found[backend] = partial(student_step, backend)
        return found

    def case(self, size: int, dtype: torch.dtype, form: str, device: str) -> Case:
        """Return a step on ``size`` images, under autocast when ``dtype`` has 16 bits."""
        return Case(
            op=self.op,
            numel=size,
            dtype=dtype,
            form=form,
            device=device,
            bind=partial(bind, dtype, device),
            make=partial(make, size, form, device),
            verify=partial(verify, dtype, device),
            num_images=size,
        )


def make(num_images: int, method: str, device: str) -> Inputs:
    """Return the plain model, the student, images and labels."""
    x = torch.randn(num_images, 3, SIDE, SIDE, device=device)
    plain = build("resnet20", CLASSES).to(device)
    student = quantize(plain, weight_bits=2, act_bits=2, method=method)
    calibrate(student, x)
    return plain, student, x, torch.arange(num_images, device=device) % CLASSES


def bind(dtype: torch.dtype, device: str, provider: Provider) -> Provider:
    """Return a call of the provider under autocast when ``dtype`` has 16 bits."""

    def run(*inputs: object) -> tuple[nn.Module, Tensor]:
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            result: tuple[nn.Module, Tensor] = provider(*inputs)
        return result

    return run


def verify(
    dtype: torch.dtype, device: str, result: tuple[nn.Module, Tensor], inputs: Inputs
) -> str | None:
    """Compare the loss with that of the reference backend."""
    model, loss = result
    with use_backend("reference"), torch.autocast(device, dtype, dtype != torch.float32):
        wanted = loss_of(model, *inputs[2:])
    return None if torch.allclose(loss, wanted, TOLERANCE) else "its loss is wrong"


def loss_of(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy on a batch."""
    return nn.functional.cross_entropy(model(x), y)


def step(model: nn.Module, x: Tensor, y: Tensor) -> tuple[nn.Module, Tensor]:
    """Take a whole step of SGD at rate 0: every round then finds the same weights."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    loss = loss_of(model, x, y)
    loss.backward()
    optimizer.step()
    return model, loss.detach()


def student_step(
    backend: str, plain: nn.Module, student: nn.Module, *batch: Tensor
) -> tuple[nn.Module, Tensor]:
    """Take the student's step with one backend."""
    with use_backend(backend):
        return step(student, *batch)


STEP = StepBenchmark()
