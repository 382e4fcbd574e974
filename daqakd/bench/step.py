"""A training step of a W2A2 ResNet-20: what quantizing costs beside the full-precision step."""

import torch
from torch import Tensor, nn

from ..backends import can_run, use_backend
from ..models import build
from ..quant import calibrate, quantize
from .measure import Case, Contestant, Inputs

CLASSES, SIDE = 10, 32
# loss may differ by this share: a value on a tie may be rounded to either side
TOLERANCE = 1e-3


class Step:
    """Rows of forward, loss, backward and SGD; a form is a method of ``quantize``."""

    op = "step"
    forms = ("lsq", "pact", "dorefa", "ewgs")

    def contestants(self, device: str) -> dict[str, Contestant]:
        """Return who can run on ``device``: the plain model, then the student by backend."""
        found: dict[str, Contestant] = {"fp32": lambda plain, student, *batch: step(plain, *batch)}
        for backend in ("reference", "triton", "native"):
            if can_run("lsq", backend, device, torch.float32) is None:
                found[backend] = _forced(backend)
        return found

    def case(self, size: int, dtype: torch.dtype, form: str, device: str) -> Case:
        """Return a step on ``size`` images, under autocast when ``dtype`` has 16 bits."""

        def make() -> Inputs:
            x = torch.randn(size, 3, SIDE, SIDE, device=device)
            plain = build("resnet20", CLASSES).to(device)
            student = quantize(plain, weight_bits=2, act_bits=2, method=form)
            calibrate(student, x)
            return plain, student, x, torch.arange(size, device=device) % CLASSES

        def bind(contestant: Contestant) -> Contestant:
            def run(*inputs: object) -> tuple[nn.Module, Tensor]:
                with torch.autocast(device, dtype, enabled=dtype != torch.float32):
                    result: tuple[nn.Module, Tensor] = contestant(*inputs)
                return result

            return run

        def verify(result: tuple[nn.Module, Tensor], inputs: Inputs) -> str | None:
            net, loss = result
            with use_backend("reference"), torch.autocast(device, dtype, dtype != torch.float32):
                wanted = loss_of(net, *inputs[2:])
            return None if torch.allclose(loss, wanted, TOLERANCE) else "its loss is wrong"

        return Case(self.op, size, dtype, form, device, bind, make, verify, size)


def loss_of(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy on a batch."""
    return nn.functional.cross_entropy(net(x), y)


def step(net: nn.Module, x: Tensor, y: Tensor) -> tuple[nn.Module, Tensor]:
    """Take a whole step of SGD at rate 0: every turn then finds the same weights."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0, momentum=0.9)
    loss = loss_of(net, x, y)
    loss.backward()
    optimizer.step()
    return net, loss.detach()


def _forced(backend: str) -> Contestant:
    def run(plain: nn.Module, student: nn.Module, *batch: Tensor) -> tuple[nn.Module, Tensor]:
        with use_backend(backend):
            return step(student, *batch)

    return run


STEP = Step()
