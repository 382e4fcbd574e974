"""NNCF: ``symmetric_quantize``, the fake quantizer inside its PyTorch modules.

Its kernels are compiled at their first call, with a C++ compiler; without one NNCF takes ATen ops.
"""

from torch import Tensor

from ..measure import Provider, with_convention
from ..quantizer import BITS, broadcast

OPS = ("lsq",)
QMIN, QMAX = -(2 ** (BITS - 1)), 2 ** (BITS - 1) - 1


@with_convention("learns the range, step times the highest code, with a gradient of its own")
def fake_quantize(x: Tensor, step: Tensor, form: str) -> Tensor:
    """Quantize by the step of a tensor, or of each channel."""
    from nncf.torch.quantization.quantize_functions import symmetric_quantize

    scale = broadcast(step, form) * QMAX
    y: Tensor = symmetric_quantize(x, 2**BITS, QMIN, QMAX, scale, 0.0)
    return y


def providers(op: str, device: str) -> dict[str, Provider]:
    """Return NNCF's provider of an op."""
    return {"nncf": fake_quantize} if op in OPS else {}
