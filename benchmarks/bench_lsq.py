"""LSQ, forward and backward: ``pytest benchmarks/bench_lsq.py --benchmark-json=bench.json``."""

import os

import pytest
import torch

from .conftest import DEVICE
from .contestants_lsq import QMAX, QMIN, along, contestants

SIZES = [
    int(size) for size in os.environ.get("DAQAKD_BENCH_SIZES", "1024,65536,16777216").split(",")
]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CONTESTANTS = contestants(DEVICE)


def shape_of(size: int, axis: int | None) -> tuple[int, ...]:
    """Return images with 64 channels, or as many as fit."""
    return (size,) if axis is None else (max(1, size // 4096), min(64, size // 16), 8, 8)


@pytest.mark.parametrize("axis", [None, 1], ids=["tensor", "channel"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CONTESTANTS)
def test_forward_and_backward(name, dtype, size, axis, repeat, device, time_row):
    if name == "torch-op" and dtype != "float32" and axis is not None:
        pytest.skip("PyTorch's op takes no float32 steps for bfloat16 channels")
    quantize, kind = CONTESTANTS[name], DTYPES[dtype]
    shape = shape_of(size, axis)
    steps = () if axis is None else (shape[axis],)

    def make():
        x = torch.randn(shape, device=device).to(kind).requires_grad_()
        step = torch.full(steps or (1,), 0.25, device=device, requires_grad=True)
        return x, step, torch.randn(shape, device=device).to(kind)

    def run(x, step, grad):
        y = quantize(x, step, axis)
        return (y, *torch.autograd.grad(y, (x, step), grad))

    def verify(result, inputs):
        x, step, _ = inputs
        v = x.detach().float() / along(step.detach(), x, axis)
        wanted = torch.round(v.clamp(QMIN, QMAX)) * along(step.detach(), x, axis)
        assert torch.equal(result[0].float(), wanted.to(kind).float())
        outside = (v > QMAX + 1) | (v < QMIN - 1)
        assert not result[1][outside].any()

    numel = torch.Size(shape).numel()
    time_row(run, make, verify, op="lsq", numel=numel, dtype=kind, device=device)
