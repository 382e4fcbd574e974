"""What quantizes an input: layers, and the operands of additions and products that users place."""

from typing import Any

from torch import Tensor, nn
from torch.compiler import is_compiling

from .activation_cache import ActivationCache
from .activations import EWGSActivation
from .base import ActivationQuantizer
from .quantized import Quantized
from .weight_cache import recording_hooks


class QuantInput(nn.Module):
    """Base of what reads a quantized input."""

    act_quantizer: ActivationQuantizer | None
    passing: bool = False
    activation_cache: ActivationCache | None = None  # set during a forward pass of the model only

    @property
    def calibrating(self) -> bool:
        """Whether ``calibrate`` is running."""
        quantizer: Any = self._modules.get("act_quantizer")
        return quantizer is not None and quantizer.phase == "start"

    def quantized_input(self, x: Tensor | Quantized) -> Tensor:
        """Return the activations to compute with."""
        modules: Any = self._modules  # as an attribute, a module is found last
        quantizer: ActivationQuantizer | None = modules.get("act_quantizer")
        cache = self.activation_cache
        if isinstance(x, Quantized):
            return x.value if quantizer is None else x.renewed(quantizer)
        if quantizer is None:
            return x
        if is_compiling() or cache is None or quantizer.phase is not None or recording_hooks():
            return quantizer(x)
        return cache.quantize(quantizer, x)


class Operand(QuantInput):
    """One input of a :class:`PlacedOperation`: as it is, until it has a quantizer.

    EWGS's values lie in [0, 1]; they are brought back to the range of the input, since no scale of
    an output makes up for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_module("act_quantizer", None)

    def forward(self, x: Tensor) -> Tensor:
        """Quantize."""
        quantizer = self.act_quantizer
        if quantizer is None or self.passing:
            return x
        y = self.quantized_input(x)
        if isinstance(quantizer, EWGSActivation) and quantizer.phase not in ("observe", "pass"):
            low, high = quantizer.lower.to(y.dtype), quantizer.upper.to(y.dtype)
            y = low + (high - low) * y
        return y
