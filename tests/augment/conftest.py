"""torchvision's affine grids and magnitudes, summed in the same order on every machine.

torchvision multiplies coordinates and matrix by ``bmm``, whose BLAS fuses additions on some
processors and not on others; pixels at ties follow. Here they are fused, as our operations are, and
so are the magnitudes of ``linspace``, which PyTorch fuses only where it was compiled for that.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import _functional_tensor, autoaugment

machine_grid, machine_linspace = _functional_tensor._gen_affine_grid, torch.linspace
FUSED = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")  # by PyTorch's own kernels


def fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return (a.double() * b.double() + c.double()).float()


def fused_grid(theta: Tensor, w: int, h: int, ow: int, oh: int) -> Tensor:
    x = torch.arange(ow) - (ow - 1) / 2
    y = (torch.arange(oh) - (oh - 1) / 2)[:, None]
    rows = (theta.transpose(1, 2) / torch.tensor([0.5 * w, 0.5 * h]))[0]
    axes = [fma(y, rows[1, axis], x * rows[0, axis]) + rows[2, axis] for axis in range(2)]
    return torch.stack(axes, 2)[None]


def fused_linspace(start: float, end: float, steps: int) -> Tensor:
    first, last = torch.tensor(start), torch.tensor(end)
    step, place = (last - first) / (steps - 1), torch.arange(steps)
    upwards, downwards = fma(step, place, first), fma(-step, steps - 1 - place, last)
    return torch.where(place < steps // 2, upwards, downwards)


class FusedTorch:
    """What torchvision's policies see as torch."""

    linspace = staticmethod(fused_linspace)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@pytest.fixture(autouse=True)
def _fused(monkeypatch) -> None:
    monkeypatch.setattr(_functional_tensor, "_gen_affine_grid", fused_grid)
    monkeypatch.setattr(autoaugment, "torch", FusedTorch())
