"""torchao: the op under ``IntxFakeQuantizer`` of its quantization-aware training.

The class itself takes matrices only, quantized by rows.
"""

import torch
from torch import Tensor

from ..measure import Provider, with_convention
from ..quantizer import BITS

OPS = ("lsq",)
QMIN, QMAX = -(2 ** (BITS - 1)), 2 ** (BITS - 1) - 1


@with_convention(
    "inputs whose code is the lowest or the highest count as outside the range",
    "its input gradient is wrong",
)
def fake_quantize(x: Tensor, step: Tensor, form: str) -> Tensor:
    """Quantize by the step of a tensor, or of each channel."""
    from torchao.quantization.quant_primitives import _fake_quantize_affine

    channels = range(x.dim()) if form == "channel" else ()
    block = [1 if axis == 1 and axis in channels else size for axis, size in enumerate(x.shape)]
    zero = torch.zeros_like(step, dtype=torch.int32)
    y: Tensor = _fake_quantize_affine(x, tuple(block), step, zero, torch.int8, QMIN, QMAX)
    return y


def providers(op: str, device: str) -> dict[str, Provider]:
    """Return torchao's provider of an op."""
    return {"torchao": fake_quantize} if op in OPS else {}
