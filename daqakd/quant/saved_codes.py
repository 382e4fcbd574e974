"""``save="codes"``: a layer keeps its quantized input for backward as packed codes.

A convolution or linear layer keeps its input for the gradient of its weights. Saved-tensor hooks
around that operation alone keep the quantizer's codes instead and rebuild the same values in
backward, bit for bit; NaN alone comes back as the lowest level. The quantizer's parameter is the
one of the forward pass: backward refuses one changed in place since, as autograd does. Values stay
as they are where torch computes with a copy of the input (padding other than zeros, dimensions in
an order that a linear layer cannot read), under torch.compile, and where other saved-tensor hooks
are active, as in checkpoints.
"""

from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor

from .._ops import METHOD_CODES, overload
from ..backends import choose
from .base import ActivationQuantizer
from .flags import version_of
from .weight_cache import recording_hooks

PARAMETERS = {"lsq": "step", "pact": "alpha"}  # the values of other methods follow from the code


class _Kept(NamedTuple):
    """A tensor, and its counter of changes in place when it was kept."""

    tensor: Tensor
    version: int | None

    def unchanged(self) -> Tensor:
        """Return the tensor, unless it was changed since."""
        if version_of(self.tensor) != self.version:
            raise RuntimeError(
                "one of the tensors needed for backward was changed in place after the forward pass"
                f": {self.tensor.dtype} {tuple(self.tensor.shape)} is at version"
                f" {version_of(self.tensor)}, expected {self.version}; call backward first"
            )
        return self.tensor


class SavedCodes:
    """Quantized values as codes, and what rebuilds them; one for all layers that read the values.

    Args:
        y: the values, dense.
        quantizer: what made them.
        codes: their packed codes in memory order, where they are known.
    """

    def __init__(
        self, y: Tensor, quantizer: ActivationQuantizer, codes: Tensor | None = None
    ) -> None:
        method, name = quantizer.method, PARAMETERS.get(quantizer.method)
        self.parameter = None
        if name is not None:
            parameter = getattr(quantizer, name)
            self.parameter = _Kept(parameter, version_of(parameter))
        signed = quantizer.known_signed and method != "ewgs"
        self.grid = METHOD_CODES[method], quantizer.bits, signed
        self.count, self.backend = y.numel(), choose("codes", y)
        self.codes = self._run("codes_pack", y) if codes is None else codes

    def values(self, dtype: torch.dtype) -> Tensor:
        """Return the values in memory order, ``[count]``."""
        return self._run("codes_unpack", self.codes, self.count, dtype)

    def _run(self, name: str, x: Tensor, *rest: Any) -> Tensor:
        """Run an op on tensors that autograd does not follow: nothing is saved within a hook."""
        parameter = None if self.parameter is None else self.parameter.unchanged().detach()
        found: Tensor = overload(name, self.backend)(x.detach(), parameter, *self.grid, *rest)
        return found


class _KeptCodes(NamedTuple):
    codes: SavedCodes
    shape: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype

    def unchanged(self) -> Tensor:
        return self.codes.values(self.dtype).as_strided(self.shape, self.strides)


def codes_of(y: Tensor, quantizer: ActivationQuantizer, codes: Tensor | None = None) -> SavedCodes:
    """Return the codes of ``y``, made once; what knows them before gives ``codes``."""
    own = vars(y)
    if "saved_codes" not in own:
        own["saved_codes"] = SavedCodes(y, quantizer, codes)
    found: SavedCodes = own["saved_codes"]
    return found


def can_save_codes(y: Tensor, quantizer: ActivationQuantizer) -> bool:
    """Return whether ``y`` is what the quantizer gave, and may be kept as codes."""
    return (
        torch.is_grad_enabled()
        and type(y) is Tensor
        and not y.is_meta
        and y.numel() > 0
        and quantizer.has_fused_op
        and quantizer.phase is None
        and not quantizer._forward_hooks
        and not recording_hooks()
        and torch._C._autograd._saved_tensors_hooks_get_disabled_error_message() is None
    )


class _Keeper:
    """Recognizes the layer's input among what an operation saves. Autograd keeps it as long."""

    def __init__(self, y: Tensor, read: Tensor, quantizer: ActivationQuantizer) -> None:
        self.y, self.quantizer = ref(y), quantizer
        self.address, self.elements = read.data_ptr(), _elements(read)

    def pack(self, x: Tensor) -> _Kept | _KeptCodes:
        """Return what is kept of a saved tensor."""
        y = self.y()
        if y is None or x.data_ptr() != self.address or _elements(x) != self.elements:
            return _Kept(x, version_of(x))
        return _KeptCodes(codes_of(y, self.quantizer), x.shape, x.stride(), x.dtype)


def _elements(x: Tensor) -> tuple[int, int, torch.dtype]:
    """Return what a view of all elements has in common with their tensor."""
    last = sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True))
    return x.numel(), last, x.dtype


def _unpack(kept: _Kept | _KeptCodes) -> Tensor:
    return kept.unchanged()


def _as_read(y: Tensor) -> Tensor:
    """Return ``y`` in the dtype that autocast lets convolutions and linear layers read it in."""
    kind = y.device.type
    if not torch.is_autocast_enabled(kind) or y.dtype == torch.float64:
        return y
    return y.to(torch.get_autocast_dtype(kind))


def with_saved_codes(
    linear_map: Callable[[Tensor], Tensor], y: Tensor, quantizer: ActivationQuantizer
) -> Tensor:
    """Return ``linear_map(y)``, which keeps ``y`` as codes."""
    read = _as_read(y)
    keeper = _Keeper(y, read, quantizer)
    with torch.autograd.graph.saved_tensors_hooks(keeper.pack, _unpack):
        return linear_map(read)
