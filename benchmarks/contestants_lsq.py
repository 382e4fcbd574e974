"""LSQ by everybody: the same values; gradients at the ends differ by convention (see the docs)."""

from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec

import torch
from torch import Tensor

from daqakd.backends import can_run
from daqakd.functional import lsq

QMIN, QMAX = -8, 7
Quantizer = Callable[[Tensor, Tensor], Tensor]


def along(step: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """Shape ``step`` to broadcast along ``axis`` of ``x``."""
    return step if axis is None else step.reshape([-1 if d == axis else 1 for d in range(x.dim())])


def eager(x: Tensor, step: Tensor, axis: int | None) -> Tensor:
    """The chain of ATen ops that LSQ repositories write."""
    s = along(step, x, axis)
    v = torch.clamp(x / s.to(x.dtype), QMIN, QMAX)
    return ((torch.round(v) - v).detach() + v) * s.to(x.dtype)


@cache
def compiled() -> Callable[..., Tensor]:
    """The same chain by torch.compile, in float32 inside, as a careful user would write it."""

    def chain(x: Tensor, step: Tensor, axis: int | None) -> Tensor:
        s = along(step, x, axis)
        v = torch.clamp(x.float() / s, QMIN, QMAX)
        return (((torch.round(v) - v).detach() + v) * s).to(x.dtype)

    return torch.compile(chain, fullgraph=True, dynamic=False)


def native_op(x: Tensor, step: Tensor, axis: int | None) -> Tensor:
    """PyTorch's own learnable op."""
    zero = torch.zeros_like(step)
    if axis is None:
        return torch._fake_quantize_learnable_per_tensor_affine(x, step, zero, QMIN, QMAX, 1.0)
    return torch._fake_quantize_learnable_per_channel_affine(x, step, zero, axis, QMIN, QMAX, 1.0)


def brevitas(x: Tensor, step: Tensor, axis: int | None) -> Tensor:
    """Brevitas's integer quantizer."""
    from brevitas.core.quant import IntQuant

    quantizer = IntQuant(narrow_range=False, signed=True, input_view_impl=torch.nn.Identity())
    return quantizer(along(step, x, axis), torch.tensor(0.0), torch.tensor(4.0), x)


def contestants(device: str) -> dict[str, Callable[..., Tensor]]:
    """Return who can run on ``device``, ours last."""
    found = {"eager": eager, "compile": lambda *a: compiled()(*a), "torch-op": native_op}
    if find_spec("brevitas"):
        found["brevitas"] = brevitas
    for backend in ("reference", "triton", "native"):
        if can_run("lsq", backend, device, torch.float32) is None:
            run = partial(lsq, bits=4, signed=True, backend=backend)
            found[backend] = lambda x, s, axis, run=run: run(x, s, axis=axis)
    return found
