"""The parts of a fused forward pass: chains by one op, and activations that a quantizer implies.

Each holds names and settings, never modules: the code that calls them hands these over, so that a
copy of a model, or a module replaced in it, is what runs.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..._ops import ACTIVATION_CODES
from ...backends import choose
from ...functional.bn_act_quant import UNQUANTIZED, QuantizerSettings, Settings, run_checked
from ..quantized import Quantized
from ..saved_codes import can_save_codes, codes_of
from .heads import Head, ModuleHead, NormCall
from .members import Kind, activation_kind, is_hooked, is_ready, layers_obstacle, takes
from .proxies import IN_PLACE

Step = Callable[..., Tensor]


@dataclass(frozen=True)
class Activation:
    """ReLU or ReLU6: a module's, by its name, or a function's."""

    kind: Kind
    module: str | None
    function: Step | None

    def obstacle(self, module: nn.Module | None) -> str | None:
        """Return why the op cannot stand for it, as the module is now."""
        if self.module is None:
            return None
        if module is None or activation_kind(module) != self.kind:
            return f"{type(module).__name__} in place of its activation"
        return "hooks on its activation" if is_hooked(module) else None

    def run(self, module: nn.Module | None, x: Tensor) -> Tensor:
        """Apply the member itself."""
        step: Any = self.function if self.module is None else module
        y: Tensor = step(x)
        return y


@dataclass(frozen=True)
class Sum:
    """The addition of a residual, as the model does it."""

    function: Step
    norm_first: bool

    def run(self, x: Tensor, residual: Tensor) -> Tensor:
        """Add as the model does."""
        return self.function(x, residual) if self.norm_first else self.function(residual, x)


@dataclass(frozen=True, eq=False)
class Chain:
    """A norm, then perhaps a sum, an activation, and the quantizer of the layers that follow.

    Called by generated code; runs the members themselves where the op cannot stand for them.
    """

    __name__ = "chain"

    head: Head
    sum: Sum | None
    activation: Activation | None
    layers: tuple[str, ...]
    """The layers whose quantizers, equal ones, the op takes over."""
    with_activation: bool
    """Whether others read the activation too."""

    def obstacle(self, norm: Any, act: nn.Module | None, layers: tuple[Any, ...]) -> str | None:
        """Return why the members have to run themselves, as they are now."""
        reason = self.head.obstacle(norm)
        if reason is None and self.activation is not None:
            reason = self.activation.obstacle(act)
        return layers_obstacle(layers) if reason is None else reason

    def obstacle_in(self, root: nn.Module) -> str | None:
        """Return why the members have to run themselves in a model, as it is now."""
        is_module = isinstance(self.head, ModuleHead)
        norm = root.get_submodule(self.head.name) if is_module else None
        return self.obstacle(norm, *_parts(root, self))

    def describe(self, root: nn.Module) -> str:
        """Return what runs with the norm."""
        residual = ["the residual"] if self.sum is not None else []
        act = [self.activation.kind] if self.activation is not None else []
        lasts = [_quantizer_of(root, self.layers)] if self.layers else []
        return " + ".join([*residual, *act, *lasts])

    def __call__(
        self,
        norm: Any,  # the module, or the tensors of a call
        act: nn.Module | None,
        layers: tuple[Any, ...],
        x: Tensor,
        residual: Tensor | None,
    ) -> Any:
        """Return what the layers take, or the activation; both where others read that."""
        quantizer: Any = layers[0]._modules.get("act_quantizer") if layers else None
        both = self.with_activation
        if (
            self.obstacle(norm, act, layers) is not None
            or not takes(self.head.dimensions(norm), state := self.head.state(norm), x, residual)
            or (layers and not is_ready(quantizer))
        ):
            y = self._members(norm, act, x, residual)
            return (y, y) if both else y
        if quantizer is None or (both and torch.is_inference_mode_enabled()):
            # tensors of inference mode do not tell whether they changed
            y = self._run(self.head.call(norm, state), x, residual)[0]
            return (y, y) if both else y
        settings, keeps = quantizer.fused_settings(x), _keep_codes(layers, x, quantizer)
        y, t, *codes = self._run(self.head.call(norm, state), x, residual, settings, keeps)
        if codes:
            codes_of(y, quantizer, *codes)
        return (Quantized(y, t, t._version), t) if both else Quantized(y)

    def _members(
        self, norm: Any, act: nn.Module | None, x: Tensor, residual: Tensor | None
    ) -> Tensor:
        y = self.head.run(norm, x)
        if self.sum is not None and residual is not None:
            y = self.sum.run(y, residual)
        return y if self.activation is None else self.activation.run(act, y)

    def _run(
        self,
        norm: NormCall,
        x: Tensor,
        residual: Tensor | None,
        quantizer: QuantizerSettings = UNQUANTIZED,
        with_codes: bool = False,
    ) -> tuple[Tensor, ...]:
        """Return what the layers take, or the activation; then that, and the codes if wanted."""
        kind = "none" if self.activation is None else self.activation.kind
        momentum = norm.momentum
        given = Settings(
            choose("bn_act_quant", x),
            (norm.mean, norm.var),
            norm.training,
            (0.0, momentum) if isinstance(momentum, Tensor) else (momentum, None),
            norm.eps,
            ACTIVATION_CODES[kind],
            quantizer,
            self.with_activation and quantizer.method != 0,
            with_codes,
        )
        return run_checked(x, residual, norm.weight, norm.bias, given)


@dataclass(frozen=True, eq=False)
class ImpliedReLU:
    """A ReLU before quantizers without negative codes, whose clipping at 0 makes it needless."""

    __name__ = "implied_relu"

    activation: Activation
    layers: tuple[str, ...]

    def obstacle(self, act: nn.Module | None, layers: tuple[Any, ...]) -> str | None:
        """Return why it has to run, as things are now."""
        reason = self.activation.obstacle(act)
        for layer in layers:
            reason = reason or layers_obstacle((layer,))
        return reason

    def obstacle_in(self, root: nn.Module) -> str | None:
        """Return why it has to run in a model, as it is now."""
        return self.obstacle(*_parts(root, self))

    def describe(self, root: nn.Module) -> str:
        """Return what makes it needless."""
        return _quantizer_of(root, self.layers)

    def __call__(self, act: nn.Module | None, layers: tuple[Any, ...], x: Tensor) -> Tensor:
        """Return x, or its ReLU where that matters."""
        if self.obstacle(act, layers) is None and all(_clips(x.act_quantizer) for x in layers):
            return x
        return self.activation.run(act, x)


def _parts(
    root: nn.Module, part: Chain | ImpliedReLU
) -> tuple[nn.Module | None, tuple[nn.Module, ...]]:
    """Return the modules of an activation and the layers after it."""
    name = None if part.activation is None else part.activation.module
    layers = tuple(root.get_submodule(name) for name in part.layers)
    return None if name is None else root.get_submodule(name), layers


def _quantizer_of(root: nn.Module, layers: tuple[str, ...]) -> str:
    first: Any = root.get_submodule(layers[0])
    quantizer = getattr(first, "act_quantizer", None)
    return f"{'no quantizer' if quantizer is None else quantizer.method} of {', '.join(layers)}"


def _keep_codes(layers: tuple[Any, ...], x: Tensor, quantizer: Any) -> bool:
    """Return whether a layer keeps its input as codes, where that is made of x."""
    return any(layer.save == "codes" for layer in layers) and can_save_codes(x, quantizer)


def _clips(quantizer: Any) -> bool:
    """Return whether it takes negative values to code 0, with no gradient to them."""
    return is_ready(quantizer) and not quantizer.known_signed and not quantizer.has_offset


SUMS: dict[Any, tuple[Step, bool]] = {  # by target: as a function, and whether in place
    operator.add: (operator.add, False),
    IN_PLACE["iadd"]: (IN_PLACE["iadd"], True),
    torch.add: (torch.add, False),
    "add": (torch.Tensor.add, False),
    "add_": (torch.Tensor.add_, True),
}
ACTIVATIONS: dict[Any, tuple[Kind, Step]] = {
    nn.functional.relu: ("relu", nn.functional.relu),
    nn.functional.relu6: ("relu6", nn.functional.relu6),
    torch.relu: ("relu", torch.relu),
    torch.relu_: ("relu", torch.relu_),
    "relu": ("relu", torch.relu),
    "relu_": ("relu", torch.relu_),
}
