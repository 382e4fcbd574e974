"""Modules: :class:`QuantAdd` and :class:`QuantMatMul` to place in a model, and quantized layers.

``quantize`` makes the layers; they are here to be recognised by ``isinstance``.
"""

from .quant.attention import QuantMultiheadAttention
from .quant.convolutions import (
    QuantConv1d,
    QuantConv3d,
    QuantConvTranspose1d,
    QuantConvTranspose2d,
    QuantConvTranspose3d,
)
from .quant.embedding import QuantEmbedding
from .quant.layers import QuantConv2d, QuantLinear
from .quant.placed import QuantAdd, QuantMatMul

__all__ = [
    "QuantAdd",
    "QuantConv1d",
    "QuantConv2d",
    "QuantConv3d",
    "QuantConvTranspose1d",
    "QuantConvTranspose2d",
    "QuantConvTranspose3d",
    "QuantEmbedding",
    "QuantLinear",
    "QuantMatMul",
    "QuantMultiheadAttention",
]
