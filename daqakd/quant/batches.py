"""Calibration batches of any kind: how a model takes them, and how many samples they hold."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._pytree import tree_leaves

from .._errors import InputError


class Batch(NamedTuple):
    """What the model is called with; ``number`` counts from 0."""

    number: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def tensors(self) -> list[Tensor]:
        """Return the tensors in it."""
        return [x for x in tree_leaves((self.args, self.kwargs)) if isinstance(x, Tensor)]

    @property
    def samples(self) -> int:
        """The first dimension of the first tensor."""
        first = self.tensors()[0]
        return len(first) if first.dim() else 1

    def is_finite(self) -> bool:
        """Return whether no value is NaN or infinite."""
        return all(bool(x.isfinite().all()) for x in self.tensors() if x.is_floating_point())


def _is_one_batch(batches: Any) -> bool:
    """Return whether it is one batch, not an iterable of some; a pair may be (images, labels)."""
    if isinstance(batches, Tensor | Mapping):
        return True
    if not isinstance(batches, tuple | list) or len(batches) != 2:
        return False
    x, y = batches
    if not isinstance(y, Tensor) or not isinstance(x, Tensor | Mapping):
        return False
    return isinstance(x, Mapping) or x.dim() != y.dim()


def _keywords(batch: Mapping[str, Any], forward: Callable[..., Any]) -> dict[str, Any]:
    """Return the entries that ``forward`` takes."""
    known = inspect.signature(forward).parameters
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return dict(batch)
    taken = {name: value for name, value in batch.items() if name in known}
    missing = [
        name
        for name, p in known.items()
        if p.default is p.empty and p.kind is not p.VAR_POSITIONAL and name not in taken
    ]
    if missing or not taken:
        raise InputError(
            f"batches: a dictionary of {', '.join(map(str, batch))}, but the model's forward takes"
            f" {', '.join(known)}; pass dictionaries of its arguments, or tensors"
        )
    return taken


def _arguments(batch: Any, forward: Callable[..., Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what the model is called with, labels left out."""
    pair = isinstance(batch, Sequence) and not isinstance(batch, str | bytes) and len(batch) > 0
    x = batch[0] if pair else batch
    if isinstance(x, Mapping):
        return (), _keywords(x, forward)
    if isinstance(x, Tensor):
        return (x,), {}
    if pair and isinstance(x, Sequence) and any(isinstance(part, Tensor) for part in x):
        return tuple(x), {}
    raise InputError(
        f"batches: expected tensors [B, ...], dictionaries of the model's arguments, or pairs of"
        f" these with labels, got {type(x).__name__}; convert them, e.g. by torch.as_tensor"
    )


def as_batches(batches: Any, forward: Callable[..., Any]) -> list[Batch]:
    """Return the batches as calls of the model.

    Raises:
        InputError: there is none, one is empty, or of a kind the model cannot be called with.
    """
    if _is_one_batch(batches):
        batches = [batches]
    if isinstance(batches, str | bytes) or not isinstance(batches, Iterable):
        raise InputError(
            f"batches: expected a tensor [B, ...] or an iterable of batches, got"
            f" {type(batches).__name__}; pass a batch, or a list or loader of some"
        )
    found = [Batch(i, *_arguments(batch, forward)) for i, batch in enumerate(batches)]
    if not found:
        raise InputError("batches: empty; calibration needs at least one batch")
    for batch in found:
        if not batch.tensors() or any(x.numel() == 0 for x in batch.tensors()):
            raise InputError(
                f"batches: batch {batch.number} (the first is 0) holds no values; leave it out"
            )
    return found


def stop_at(batch: Batch, layer: str) -> InputError:
    """Return the error for values that are not finite where they reach ``layer``."""
    if batch.is_finite():
        cause = "the batch is finite, so the model overflows; check its weights, or use float32"
    else:
        cause = "the batch itself holds such values; repair it or leave it out"
    return InputError(
        f"batches: batch {batch.number} (the first is 0) has NaN or infinite values where it"
        f" reaches {layer}: {cause}"
    )
