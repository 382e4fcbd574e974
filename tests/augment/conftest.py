"""torchvision's affine grids, summed in the same order on every machine.

torchvision multiplies coordinates and matrix by ``bmm``, whose BLAS fuses additions on some
processors and not on others; pixels at ties follow. Here they are fused, as our operations are.
"""

import pytest
import torch
from torch import Tensor
from torchvision.transforms import _functional_tensor

machine_grid = _functional_tensor._gen_affine_grid


def fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return (a.double() * b.double() + c.double()).float()


def fused_grid(theta: Tensor, w: int, h: int, ow: int, oh: int) -> Tensor:
    x = torch.arange(ow) - (ow - 1) / 2
    y = (torch.arange(oh) - (oh - 1) / 2)[:, None]
    rows = (theta.transpose(1, 2) / torch.tensor([0.5 * w, 0.5 * h]))[0]
    axes = [fma(y, rows[1, axis], x * rows[0, axis]) + rows[2, axis] for axis in range(2)]
    return torch.stack(axes, 2)[None]


@pytest.fixture(autouse=True)
def _fused_grids(monkeypatch) -> None:
    monkeypatch.setattr(_functional_tensor, "_gen_affine_grid", fused_grid)
