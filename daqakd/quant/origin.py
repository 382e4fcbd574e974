"""What a student was made with: the arguments of ``quantize``, as files keep them."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from torch import Tensor, nn

from .spec import LayerSpec

ARGUMENTS = "quantized_with"  # the attribute of a student; copies and pickles have it, too


def note_arguments(
    student: nn.Module,
    spec: LayerSpec,
    exclude: Sequence[str],
    overrides: Mapping[str, Mapping[str, Any]],
) -> None:
    """Note the arguments on a student, all of them plain values."""
    values = {f.name: _plain(getattr(spec, f.name)) for f in fields(LayerSpec)}
    given = {f.name: f.default for f in fields(LayerSpec)}
    kept = {k: v for k, v in values.items() if v != given[k] or k in ("weight_bits", "act_bits")}
    if exclude:
        kept["exclude"] = list(exclude)
    if overrides:
        kept["overrides"] = {k: dict(v) for k, v in overrides.items()}
    student.__dict__[ARGUMENTS] = kept


def arguments_of(student: nn.Module) -> dict[str, Any] | None:
    """Return the arguments, None where the student does not know them."""
    found: dict[str, Any] | None = student.__dict__.get(ARGUMENTS)
    return found


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else value
