"""A student with rounding as the identity: its loss as a smooth function of discretised tensors.

What EWGS's quantizers round to lies in [0, 1]: weights before they are mapped to [-1, 1],
activations as a layer reads them. Each may be shifted. Every activation quantizer becomes the
straight line through what it gave in the first pass, ``y = a x + b`` with the slope of its
straight-through gradient, so that a shift of an early tensor reaches the later ones as it does in
gradients, and no code jumps. ReLU and max-pooling keep their pieces likewise: their second
derivative is 0, and a difference of gradients across a bend would be of another function.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .._errors import InputError
from .base import ScalesGradients
from .fusion.fusing import unfused
from .layers import QuantLayer
from .operands import QuantInput
from .pieces import Piece, Pieces, line
from .weight_cache import recording_hooks

REPLACED = ("quantized_weight", "quantized_input", "save")
DTYPES = (torch.float32, torch.float64)
AGAIN = (
    "student: its layers keep tensors through hooks, or compute again in the backward pass; switch"
    " checkpointing and offloading off for the update"
)


class Key(NamedTuple):
    """One discretised tensor: whose it is, and in which call of its layer in a pass."""

    quantizer: Any
    call: int


def updated_quantizers(student: nn.Module) -> dict[str, Any]:
    """Return the quantizers whose delta is a buffer, by name."""
    found = student.named_modules()
    return {n: m for n, m in found if isinstance(m, ScalesGradients) and m.updates_delta}


class Surrogate:
    """Takes the place of a student's quantizers, within :meth:`in_place`.

    The first call of :meth:`gradients` sees the student as it is; :attr:`shifts` are zeros after
    it, and later calls compute with whatever they then are.
    """

    def __init__(self, student: nn.Module) -> None:
        self.student = student
        self.layers = [m for m in student.modules() if isinstance(m, QuantInput)]
        self.shifts: dict[Key, Tensor] = {}
        self.lines: dict[Key, Piece] = {}
        self.pieces = Pieces()
        self.calls: dict[Any, int] = {}
        self.seen: dict[Any, int] | None = None  # how often a pass calls each quantizer

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the layers compute with shifted tensors within the block, and nothing be fused.

        Codes are of what was rounded, so values are kept for backward.
        """
        before = [{n: vars(x)[n] for n in REPLACED if n in vars(x)} for x in self.layers]
        try:
            for layer in self.layers:
                own: dict[str, Any] = vars(layer)
                if isinstance(layer, QuantLayer):
                    own["quantized_weight"] = self._weight(layer)
                own["quantized_input"] = self._input(layer)
                own["save"] = "values"
            with unfused(self.student):
                yield
        finally:
            for layer, values in zip(self.layers, before, strict=True):
                for name in REPLACED:
                    vars(layer).pop(name, None)
                vars(layer).update(values)

    def gradients(self, loss_of: Callable[[], Tensor]) -> dict[Key, Tensor]:
        """Return the gradients of the loss with respect to all tensors that have a shift.

        Raises:
            InputError: no finite scalar with a gradient.
        """
        self.calls.clear()
        self.pieces.again()
        with self.pieces:
            loss = loss_of()
        if self.seen is None:
            self.seen = dict(self.calls)
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            raise InputError("loss_of_batch: expected one value with a gradient; return the loss")
        keys, shifts = list(self.shifts), list(self.shifts.values())
        if not keys:
            return {}
        found = torch.autograd.grad(loss.sum(), shifts, allow_unused=True)
        if self.calls != self.seen:
            raise InputError(AGAIN)
        pairs = zip(keys, shifts, found, strict=True)
        return {k: torch.zeros_like(x) if g is None else g for k, x, g in pairs}

    def _weight(self, layer: QuantLayer) -> Callable[[], Tensor]:
        quantizer: Any = layer.weight_quantizer

        def quantized_weight() -> Tensor:
            if quantizer is None:
                return layer.weight
            with torch.no_grad():
                y = quantizer.apply_op(layer.weight)
            value: Tensor = quantizer.finish(self._shifted(Key(quantizer, 0), y))
            return value

        return quantized_weight

    def _input(self, layer: QuantInput) -> Callable[[Tensor], Tensor]:
        quantizer: Any = layer.act_quantizer

        def quantized_input(x: Tensor) -> Tensor:
            if x.is_floating_point():  # an embedding reads indices
                _check_precision(x)
            if recording_hooks():
                raise InputError(AGAIN)
            if quantizer is None:
                return x
            call = self.calls.get(quantizer, 0)
            self.calls[quantizer] = call + 1
            key = Key(quantizer, call)
            if key not in self.lines:
                self.lines[key] = line(quantizer, x)
            return self._shifted(key, self.lines[key](x))

        return quantized_input

    def _shifted(self, key: Key, y: Tensor) -> Tensor:
        quantizer = key.quantizer
        if not (isinstance(quantizer, ScalesGradients) and quantizer.updates_delta):
            return y
        if self.seen is None and key not in self.shifts:
            self.shifts[key] = torch.zeros_like(y, requires_grad=True)
        shift = self.shifts.get(key)
        return y if shift is None else y + shift


def _check_precision(x: Tensor) -> None:
    if x.dtype not in DTYPES or torch.is_autocast_enabled(x.device.type):
        raise InputError(
            "loss_of_batch: differences of gradients need float32 or float64 throughout; compute"
            " the loss without autocast, on a student of such a dtype"
        )
