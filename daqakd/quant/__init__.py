"""Quantizing a model: modules, conversion, calibration, summary, optimizer groups."""

from .calibration import calibrate
from .convert import dequantize, quantize
from .groups import param_groups
from .layers import QuantConv2d, QuantLinear
from .overview import summary

__all__ = [
    "QuantConv2d",
    "QuantLinear",
    "calibrate",
    "dequantize",
    "param_groups",
    "quantize",
    "summary",
]
