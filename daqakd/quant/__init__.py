"""Quantizing a model: modules, conversion, calibration, summary, optimizer groups."""

from .attention import QuantMultiheadAttention
from .calibration import calibrate
from .convert import dequantize, quantize
from .convolutions import (
    QuantConv1d,
    QuantConv3d,
    QuantConvTranspose1d,
    QuantConvTranspose2d,
    QuantConvTranspose3d,
)
from .embedding import QuantEmbedding
from .fusion import fuse
from .layer_summary import summary
from .layers import QuantConv2d, QuantLinear
from .optimizer_groups import param_groups
from .placed import QuantAdd, QuantMatMul
from .spec import LayerSpec

__all__ = [
    "LayerSpec",
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
    "calibrate",
    "dequantize",
    "fuse",
    "param_groups",
    "quantize",
    "summary",
]
