"""How many launches each op takes, and that the last block's sums are those of a launch alone."""

import pytest
import torch
from torch import Tensor

from daqakd._ops import overload

from ..helpers.samples import tensors
from . import build
from .backend import emulator

pytestmark = pytest.mark.skipif(build.impossible() is not None, reason=str(build.impossible()))
LOWER, UPPER = torch.tensor(-0.4), torch.tensor(0.4)
FLAT = (5_000,)  # three blocks


def lsq(*shape: int, axis: int | None = None):
    x, step = torch.randn(shape), UPPER if axis is None else torch.rand(shape[axis]) + 0.1
    return overload("lsq_backward", "emulated"), (x.flip(0), x, step, -8, 7, axis, 0, 0.5)


def pact(*shape: int, axis: int | None = None):
    g, alpha = torch.randn(shape), UPPER if axis is None else torch.rand(shape[axis])
    mask = torch.full(((g.numel() + 3) // 4,), 0x64, dtype=torch.uint8)
    return overload("pact_backward", "emulated"), (g, mask, alpha, True, axis)


def ewgs(*shape: int):
    x = torch.randn(shape)
    return overload("ewgs_backward", "emulated"), (x.flip(0), x, LOWER, UPPER, 4, 0.1, None)


def lsqplus(*shape: int):
    x = torch.randn(shape)
    return overload("lsqplus_backward", "emulated"), (x.flip(0), x, UPPER, LOWER, 4, 0.1)


def seq(*shape: int, axis: int | None = None):
    x, step = torch.randn(shape), torch.rand(() if axis is None else shape[axis])
    return overload("seq_backward", "emulated"), (x.flip(0), x, step, 4, axis, 0.5)


def weight(bits: int, detach: bool | None = None):
    """Forward, or with ``detach`` backward."""
    w = torch.randn(FLAT)
    if detach is None:
        return overload("dorefa_weight_forward", "emulated"), (w, bits)
    arguments = w.flip(0), w, w.abs().max().tanh(), bits, detach
    return overload("dorefa_weight_backward", "emulated"), arguments


def lsq_many(*shapes: tuple[int, ...]):
    x = [torch.randn(shape) for shape in shapes]
    steps = [UPPER if len(shape) == 1 else torch.rand(shape[0]) + 0.1 for shape in shapes]
    ends = [-8] * len(x), [7] * len(x)
    return overload("lsq_many_backward", "emulated"), (x, x, steps, *ends, 0, [0.5] * len(x))


def ewgs_many(*shapes: tuple[int, ...]):
    x, count = [torch.randn(shape) for shape in shapes], len(shapes)
    arguments = x, x, [LOWER] * count, [UPPER] * count, [4] * count, 0.1, None
    return overload("ewgs_many_backward", "emulated"), arguments


def kd_loss(rows: int):
    z, t, y = torch.randn(rows, 10), torch.randn(rows, 10), torch.arange(rows) % 10
    arguments = z, t, y, 4.0, 1.0, 2.0, None, None, None, 0.0, -1, 1, True
    return overload("kd_loss_forward", "emulated"), arguments


LAUNCHES = {
    "lsq": (1, lambda: lsq(*FLAT)),
    "lsq in one block": (1, lambda: lsq(50)),
    "lsq, few channels": (1, lambda: lsq(4, 3, 40, 40, axis=1)),
    "lsq, narrow channels": (1, lambda: lsq(700, 3, axis=1)),
    "lsq, more channels than a block adds up": (2, lambda: lsq(4, 70, 33, 33, axis=1)),
    "lsq, a block per channel": (1, lambda: lsq(70, 3, 3, 3, axis=0)),
    "pact": (1, lambda: pact(*FLAT)),
    "pact, few channels": (1, lambda: pact(4, 3, 40, 40, axis=1)),
    "ewgs": (1, lambda: ewgs(*FLAT)),
    "ewgs in one block": (1, lambda: ewgs(50)),
    "lsqplus": (1, lambda: lsqplus(*FLAT)),
    "lsqplus in one block": (1, lambda: lsqplus(50)),
    "seq": (1, lambda: seq(*FLAT)),
    "seq, narrow channels": (1, lambda: seq(700, 3, axis=1)),
    "dorefa weight forward": (2, lambda: weight(4)),
    "dorefa weight forward, 1 bit": (2, lambda: weight(1)),
    "dorefa weight backward": (2, lambda: weight(4, detach=False)),
    "dorefa weight backward, 1 bit": (2, lambda: weight(1, detach=False)),
    "dorefa weight backward, detached": (1, lambda: weight(4, detach=True)),
    "lsq many": (1, lambda: lsq_many(FLAT, (9_000,), (50,), (6, 2_500))),
    "lsq many, a block per row": (1, lambda: lsq_many((50,), (70, 30))),
    "lsq many, more rows than a block adds up": (2, lambda: lsq_many(FLAT, (70, 2_050))),
    "ewgs many": (1, lambda: ewgs_many(FLAT, (50,), (9_000,))),
    "kd_loss": (1, lambda: kd_loss(600)),
}


def launched(op, arguments: tuple) -> tuple[int, list[Tensor]]:
    before = emulator().counts()["launches"]
    found = tensors(op(*arguments))
    return emulator().counts()["launches"] - before, found


@pytest.mark.parametrize("name", LAUNCHES)
def test_launches(name):
    """Also while a graph records them, and then blocks are counted elsewhere."""
    wanted, make = LAUNCHES[name]
    op, arguments = make()
    launches, found = launched(op, arguments)
    assert launches == wanted
    with emulator().capturing():
        launches, captured = launched(op, arguments)
    assert launches == wanted
    assert all(map(torch.equal, found, captured))
    assert emulator().living_tensors() == 0


def test_a_tensor_between_two_tiles_has_blocks_for_every_processor():
    numel, before = 2**21 + 1, emulator().counts()["blocks"]
    g, mask = torch.ones(numel, dtype=torch.bfloat16), torch.zeros(numel // 8 + 1).byte()
    overload("dorefa_activation_backward", "emulated")(g, mask)
    assert emulator().counts()["blocks"] - before == 513
