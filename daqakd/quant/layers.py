"""QuantLayer, QuantConv2d and QuantLinear: the original layer with quantized input and weights."""

import sys
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.nn import functional as torch_functional
from torch.nn.utils import fusion

from .._errors import InputError
from .base import ActivationQuantizer, accept_zero_dim
from .operands import QuantInput
from .saved_codes import can_save_codes, with_saved_codes
from .spec import Save
from .weight_cache import CachedWeight
from .weights import WeightQuantizer

OWN = {  # attributes that the layer it replaces does not have
    "act_quantizer",
    "weight_quantizer",
    "output_scale",
    "macs",
    "cached_weight",
    "activation_cache",
    "save",
    "first_or_last",
    "passing",
    "place_in_pass",
}
FUSERS = {fusion.fuse_conv_bn_eval.__code__, fusion.fuse_linear_bn_eval.__code__}


class QuantLayer(QuantInput):
    """Base of layers with a quantized weight: quantizers, EWGS output scale, operation count.

    Subclasses are made by :meth:`adopt`, in place: the parameters, buffers and hooks of the layer
    stay, so that its ``state_dict`` keys stay valid, and whoever else holds it, in a list or as an
    attribute that is no submodule, holds the quantized layer, too.

    ``weight`` is the full-precision parameter, for whoever reads it: optimizers, initialisation,
    pruning and files change or keep what training changes. The weights it computes with are
    :meth:`quantized_weight`. What computes with ``weight`` itself would do so in full precision,
    therefore: a module that reads a child's weight in its forward pass keeps that child whole
    (:func:`~daqakd.quant.quantize` finds it, or ``calibrate`` says that the layer never ran);
    torch's fast path of transformer encoders is switched off; torch's functions that fuse a
    BatchNorm into a layer are refused: fuse before ``quantize`` or after ``dequantize``, as with
    anybody's fusing functions.

    While ``passing`` is set, the forward pass is the layer's that it replaces: quantizers, output
    scale and ``save`` take no part in it. Set it by :func:`~daqakd.quant.passing.pass_through`.
    """

    plain: ClassVar[type[nn.Module]]
    channel_axis: ClassVar[int] = 0
    """The dimension of the weight that has one step per index where a spec says per channel."""
    looks_up: ClassVar[bool] = False
    """Whether it is an embedding: its width is a spec's ``embedding_bits``, its input has none."""
    tensors: ClassVar[tuple[str, ...]] = ("weight", "bias")
    """The parameters of the plain type that a quantized layer computes with."""
    weight: Tensor
    bias: Any
    weight_quantizer: WeightQuantizer | None
    output_scale: Tensor | None
    macs: Tensor
    save: Save = "values"
    cached_weight: CachedWeight | None = None  # set during a forward pass of the model only

    @classmethod
    def adopt(
        cls,
        layer: nn.Module,
        weight: WeightQuantizer | None,
        activation: ActivationQuantizer | None,
    ) -> Self:
        """Turn ``layer`` into a quantized one, and return it."""
        self: Any = layer
        self.__class__ = cls
        self.take(weight, activation)
        converted: Self = self
        return converted

    def take(self, weight: WeightQuantizer | None, activation: ActivationQuantizer | None) -> None:
        """Compute with these quantizers from now on."""
        device = self.weight.device
        self.weight_quantizer, self.act_quantizer = weight, activation
        self.register_buffer("macs", torch.zeros((), dtype=torch.int64))
        self.output_scale = None
        if weight is not None and weight.method == "ewgs":
            self.output_scale = nn.Parameter(self._magnitude_lost())
        self.to(device)

    def weight_place(self) -> tuple[dict[str, Any], str]:
        """Return the parameters that the weight is one of, and its name among them."""
        return self._parameters, "weight"

    def replace_weight(self, value: Tensor) -> None:
        """Let the weight be a new parameter."""
        store, name = self.weight_place()
        store[name] = nn.Parameter(value)

    @staticmethod
    def weight_key(name: str) -> str:
        """Return the name of the weight in a ``state_dict``, from that of the layer."""
        return f"{name}.weight" if name else "weight"

    @staticmethod
    def weights_of(layer: Any) -> list[Tensor]:
        """Return the weights of a layer of the plain type."""
        return [layer.weight]

    @torch.no_grad()
    def _magnitude_lost(self) -> Tensor:
        """Return by how much the weights' mean magnitude is above that of the quantized ones."""
        assert self.weight_quantizer is not None
        ratio = self.weight.abs().mean() / self.weight_quantizer(self.weight).abs().mean()
        return ratio.float().reshape(1)

    @torch.no_grad()
    def restart_weights(self) -> None:
        """Start the weight quantizer, and the output scale, from the weights as they are now."""
        if self.weight_quantizer is not None:
            self.weight_quantizer.restart(self.weight)
        if self.output_scale is not None:
            self.output_scale.copy_(self._magnitude_lost())

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "weight" and sys._getframe(1).f_code in FUSERS:
            raise InputError(
                "conv: a quantized layer cannot take a BatchNorm into its weights, whose levels"
                " would change; fuse before quantize(), or fuse what dequantize() returns"
            )
        super().__setattr__(name, value)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        accept_zero_dim(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def quantized_weight(self) -> Tensor:
        """Return the weights the layer computes with."""
        if not is_compiling() and self.cached_weight is not None:
            value = self.cached_weight.get()
            if value is not None:
                return value
        quantizer, weight = self.weight_quantizer, self.weight
        return weight if quantizer is None else quantizer(weight)

    @staticmethod
    def obstacle(layer: Any) -> str | None:
        """Return why a layer of the plain type stays whole because of its options, or None."""
        return None

    @staticmethod
    def output_channels(layer: Any) -> int:
        """Return the width of a layer's output, of the plain type or of this one."""
        width: int = layer.weight.shape[0]
        return width

    @staticmethod
    def multiply_adds(layer: Any, x: Tensor, out: Tensor) -> int:
        """Return how many a call did that made ``out`` of ``x``."""
        return out.numel() * int(layer.weight[0].numel())

    def linear_map(self, x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
        """Apply the layer's operation with the given weights and bias.

        ``rest`` is what its forward takes beside the input.
        """
        raise NotImplementedError

    def saving_linear_map(
        self, y: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any
    ) -> Tensor:
        """Apply the operation to the quantized input, and keep that as ``save`` says."""
        if self.save == "values" or is_compiling():
            return self.linear_map(y, weight, bias, *rest)
        quantizer = self.act_quantizer
        if quantizer is None or not can_save_codes(y, quantizer):
            return self.linear_map(y, weight, bias, *rest)
        return with_saved_codes(lambda y: self.linear_map(y, weight, bias, *rest), y, quantizer)

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        """Quantize input and weights, apply the layer."""
        if self.passing:
            return self.linear_map(x, self.weight, self.bias, *rest)
        q, weight, bias = self.quantized_input(x), self.quantized_weight(), self.bias
        scale = self.output_scale
        if scale is not None:
            if self.calibrating:
                whole = self.linear_map(x, self.weight, self.bias, *rest)
                self._start_scale(whole, self.linear_map(q, weight, bias, *rest))
            weight, bias = scaled(scale, weight, bias)
        return self.saving_linear_map(q, weight, bias, *rest)

    def _start_scale(self, whole: Tensor, out: Tensor) -> None:
        """Start the EWGS output scale by the output in full precision and the quantized one.

        It stays that of the weights alone where one is all zero.
        """
        assert self.output_scale is not None
        ratio = whole.abs().mean() / out.abs().mean()
        usable = ratio.isfinite() & (ratio > 0)
        self.output_scale.data.copy_(torch.where(usable, ratio, self.output_scale))

    def extra_repr(self) -> str:
        """Show what is kept for backward, where that is not the values."""
        text: str = super().extra_repr()
        return text if self.save == "values" else f"{text}, save={self.save}"

    @torch.no_grad()
    def final_tensors(self) -> tuple[Tensor, Tensor | None]:
        """Return copies of the quantized weight and of the bias, the output scale folded in."""
        weight, bias = self.quantized_weight(), self.bias
        if self.output_scale is not None:
            weight, bias = scaled(self.output_scale, weight, bias)
        return weight.clone(), None if bias is None else bias.clone()

    def to_plain(self) -> None:
        """Turn into the full-precision layer type holding the quantized weights, in place."""
        weight, bias = self.final_tensors()
        for store in (self._parameters, self._buffers, self._modules, self.__dict__):
            for name in OWN & store.keys():
                del store[name]
        layer: Any = self
        layer.__class__ = self.plain
        layer.weight = nn.Parameter(weight)
        if bias is not None:
            layer.bias = nn.Parameter(bias)


def scaled(output_scale: Tensor, weight: Tensor, bias: Any) -> tuple[Tensor, Any]:
    """Return weight and bias times the output scale: they are small, the output is not."""
    scale = output_scale.abs().to(weight.dtype)
    return weight * scale, None if bias is None else bias * scale


class QuantConv2d(QuantLayer, nn.Conv2d):
    """``nn.Conv2d`` with fake-quantized input and weights."""

    plain = nn.Conv2d

    def linear_map(self, x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
        """Convolve."""
        y: Tensor = self._conv_forward(x, weight, bias)
        return y


class QuantLinear(QuantLayer, nn.Linear):
    """``nn.Linear`` with fake-quantized input and weights."""

    plain = nn.Linear

    def linear_map(self, x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
        """Multiply."""
        return torch_functional.linear(x, weight, bias)
