"""Quantizers as ONNX has them: QuantizeLinear, Clip and DequantizeLinear, and integer weights.

Modules that take a quantizer's place in a layer, so that the layer's own forward pass is exported.
They compute shapes only: their values are the runtime's.
"""

from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError
from ..quant.affine import ActivationAffine
from ..quant.base import ActivationQuantizer
from ..quant.weights import WeightQuantizer

INT4_OPSET = 21  # the first that has 4-bit types
INT4_BITS = 4


def node(op: str, opset: int, dtype: torch.dtype, *inputs: Tensor, **attributes: Any) -> Tensor:
    """Return the result of an ONNX operator, of the shape of its first input."""
    made: Tensor = torch.onnx.ops.symbolic(
        op, inputs, attributes, dtype=dtype, shape=inputs[0].shape, version=opset
    )
    return made


class QDQActivation(nn.Module):
    """Activations to codes of 8 bits, cut to the quantizer's, and back.

    Signed ones are uint8 as well, around 128: onnxruntime's convolutions want one type on both
    sides.
    """

    def __init__(self, affine: ActivationAffine, opset: int) -> None:
        super().__init__()
        self.phase, self.opset = None, opset
        zero = 128 if affine.lowest < 0 else 0
        lowest, highest = affine.lowest + zero, affine.highest + zero
        self.is_narrow = (lowest, highest) != (0, 255)
        self.register_buffer("step", affine.step.float().reshape(()))
        self.register_buffer("size", affine.size.float().reshape(()))
        self.register_buffer("shift", _unless_zero(affine.shift))
        self.register_buffer("base", _unless_zero(affine.base))
        for name, code in (("lowest", lowest), ("highest", highest), ("zero", zero)):
            self.register_buffer(name, torch.tensor(code, dtype=torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        """Return the values, of the shape of ``x``."""
        own: Any = self._buffers
        x = x if own["shift"] is None else x - own["shift"]
        codes = node("QuantizeLinear", self.opset, torch.uint8, x, own["step"], own["zero"])
        if self.is_narrow:
            ends = own["lowest"], own["highest"]
            codes = node("Clip", self.opset, torch.uint8, codes, *ends)
        back = own["size"], own["zero"]
        y = node("DequantizeLinear", self.opset, torch.float32, codes, *back)
        return y if own["base"] is None else y + own["base"]


class IntegerWeight(nn.Module):
    """Weights as integers: values are scale times (integer minus zero), or half a step above."""

    def __init__(self, quantizer: WeightQuantizer, weight: Tensor, axis: int, opset: int) -> None:
        super().__init__()
        scale, offset = quantizer.affine(weight)
        scale = scale.float()
        self.opset = opset
        self.axis = axis if scale.numel() > 1 else None
        shape = [-1 if i == self.axis else 1 for i in range(weight.dim())]
        self.bits = INT4_BITS if opset >= INT4_OPSET and quantizer.bits <= INT4_BITS else 8
        codes = quantizer.codes(weight)
        whole, self.above_half = _integers(codes, offset, quantizer.bits, self.bits)
        steps = scale if self.above_half or offset % 1 == 0 else scale / 2
        whole, zero = _positive(whole, steps.view(shape) < 0, self.bits, self.above_half)
        steps, zero = steps.abs(), zero.to(torch.int8)
        flat = () if self.axis is None else (-1,)
        self.register_buffer("codes", whole.to(torch.int8))
        self.register_buffer("scale", steps.reshape(flat))
        self.register_buffer("zero", zero.reshape(flat) if zero.any() else None)
        self.register_buffer("half_step", steps.view(shape) / 2 if self.above_half else None)

    def forward(self, w: Tensor) -> Tensor:
        """Return the values; ``w`` is what they were made of."""
        own: Any = self._buffers
        zero = [] if own["zero"] is None else [own["zero"]]
        axis = {} if self.axis is None else {"axis": self.axis}
        inputs = own["codes"], own["scale"], *zero
        y = node("DequantizeLinear", self.opset, torch.float32, *inputs, **axis)
        return y if own["half_step"] is None else y + own["half_step"]


def affine_of(quantizer: ActivationQuantizer) -> ActivationAffine:
    """Return what a quantizer is, or raise InputError where no file can say it."""
    affine = quantizer.affine()
    if affine is None:
        raise InputError(
            f"{quantizer.name}: {quantizer.method} scales by the batch's maximum, and the grids"
            " of an ONNX file are fixed; quantize with another act_method, or flavour='paper'"
        )
    if not quantizer.is_calibrated:
        raise InputError(
            f"{quantizer.name}: is not calibrated, so its step is undefined; call"
            " daqakd.calibrate(student, batches) first"
        )
    return affine


def _unless_zero(value: Tensor | None) -> Tensor | None:
    return None if value is None or not value.any() else value.float().reshape(())


def _integers(codes: Tensor, offset: float, bits: int, width: int) -> tuple[Tensor, bool]:
    """Return codes as signed integers of ``width`` bits, and whether values lie half a step above.

    With levels at odd multiples of half a step, these multiples are the integers where they fit.
    """
    wide = codes.short()
    if offset % 1 == 0:
        return wide - int(offset), False
    if bits < width:
        return 2 * wide - int(2 * offset), False
    return wide - int(offset + 0.5), True


def _positive(
    codes: Tensor, flipped: Tensor, width: int, above_half: bool
) -> tuple[Tensor, Tensor]:
    """Return codes for positive scales, and their zeros: runtimes want no negative scale.

    The lowest code of a width has no opposite in it: its channel counts from -1.
    """
    if above_half:
        return torch.where(flipped, -1 - codes, codes), torch.zeros_like(flipped, dtype=torch.int8)
    lowest = codes.amin([i for i, size in enumerate(flipped.shape) if size == 1], keepdim=True)
    zero = torch.where(flipped & (lowest == -(2 ** (width - 1))), -1, 0)
    return torch.where(flipped, zero - codes, codes), zero
