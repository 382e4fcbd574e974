"""Which layers of a model are quantized, and by which spec."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from .._errors import InputError, suggest, unknown
from .spec import LayerSpec

OVERRIDABLE = ["weight_bits", "act_bits", "weight_method", "act_method", "per_channel"]


def _refusal(layer: nn.Module, inside_attention: bool) -> str | None:
    """Return why a Conv2d or Linear cannot be replaced, or None."""
    kind = nn.Conv2d if isinstance(layer, nn.Conv2d) else nn.Linear
    if inside_attention:
        return "nn.MultiheadAttention reads its projections' weights directly"
    if type(layer).forward is not kind.forward:
        return f"{type(layer).__name__} has its own forward"
    if "weight" not in layer._parameters:
        return "its weight is computed by a parametrization"
    return None


def candidates(model: nn.Module) -> Iterator[tuple[str, nn.Module, str | None]]:
    """Yield every Conv2d and Linear once: name, layer, and the reason if it cannot be replaced."""
    attention: set[int] = set()
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            attention |= {id(inner) for inner in module.modules()}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            yield name, module, _refusal(module, id(module) in attention)


def _no_match(pattern: str, names: list[str], argument: str) -> InputError:
    inner = [f"{pattern}.*"] if any(n.startswith(f"{pattern}.") for n in names) else []
    hint = f" Did you mean {inner[0]!r}?" if inner else suggest(pattern, names)
    return InputError(
        f"{argument}: {pattern!r} matches no Conv2d or Linear layer.{hint}"
        f" Layers: {', '.join(names[:6])}{', ...' if len(names) > 6 else ''}"
    )


def _matches(patterns: Iterable[str], names: list[str], argument: str) -> dict[str, set[str]]:
    """Return the names each pattern matches; a pattern without a match is an error."""
    matched = {p: {n for n in names if fnmatchcase(n, p)} for p in patterns}
    for pattern, found in matched.items():
        if not found:
            raise _no_match(pattern, names, argument)
    return matched


def _first_and_last(base: LayerSpec, names: list[str]) -> dict[str, LayerSpec]:
    """Return the specs of the first and the last layer, where ``first_last`` sets them apart."""
    if base.first_last == "same":
        return {}
    bits = 8 if base.first_last == "8bit" else None
    act_bits = None if base.act_bits is None else bits
    spec = replace(base, weight_bits=bits, act_bits=act_bits)
    return dict.fromkeys([*names[:1], *names[-1:]], spec)


def specs_of(
    names: list[str],
    base: LayerSpec,
    exclude: Iterable[str],
    overrides: Mapping[str, Mapping[str, Any]],
) -> dict[str, LayerSpec]:
    """Return the spec of every layer to quantize; exclude beats overrides beats first_last."""
    specs = dict.fromkeys(names, base) | _first_and_last(base, names)
    for pattern, found in _matches(overrides, names, "overrides").items():
        for key in overrides[pattern]:
            if key not in OVERRIDABLE:
                raise unknown(f"key in overrides[{pattern!r}]", key, OVERRIDABLE)
        for name in found:
            specs[name] = replace(specs[name], **overrides[pattern])
            specs[name].check(f"overrides[{pattern!r}]")
    excluded = set().union(*_matches(exclude, names, "exclude").values())
    return {n: s for n, s in specs.items() if n not in excluded}


def followed_by_batchnorm(model: nn.Module) -> set[int]:
    """Return the ids of layers whose next weighted module is a BatchNorm of their width."""
    found: set[int] = set()
    previous: Any = None
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            previous = module
        elif next(module.parameters(recurse=False), None) is not None:
            norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
            width = None if previous is None else previous.weight.shape[0]
            if norm and width == module.num_features:
                found.add(id(previous))
            previous = None
    return found
