"""Which layers of a model are quantized, and by which spec."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from .._errors import InputError, seen, suggest, unknown
from .attention import QuantMultiheadAttention, QuantProjection
from .direct_reads import directly_read
from .kinds import kind_of, widths_of
from .layers import QuantLayer
from .placed import PlacedOperation
from .spec import WIDTHS, LayerSpec

OVERRIDABLE = ["weight_bits", "act_bits", "embedding_bits"]
OVERRIDABLE += ["weight_levels", "weight_method", "act_method", "per_channel"]
# members a subclass may have and still be swapped: none of them runs in a forward pass
HARMLESS = {
    *("__init__", "reset_parameters", "extra_repr", "__constants__", "__annotations__"),
    *("__module__", "__qualname__", "__doc__", "__parameters__", "__orig_bases__"),
    *("__annotate__", "__annotate_func__", "__annotations_cache__", "__static_attributes__"),
    "__firstlineno__",
}


def _own_members(layer: nn.Module, kind: type[nn.Module]) -> list[str]:
    """Return what subclasses of ``kind``, or the layer itself, define in place of its methods."""
    between = type(layer).__mro__[: type(layer).__mro__.index(kind)]
    own = {name for name in vars(layer) if callable(getattr(kind, name, None))}
    return sorted({name for part in between for name in vars(part)} - HARMLESS | own)


def _computed(layer: nn.Module, name: str) -> str | None:
    """Return how a parameter is made before each forward pass, if it is not one itself."""
    if name in layer._parameters or not hasattr(layer, name):
        return None
    if f"{name}_mask" in layer._buffers:
        return f"its {name} is pruned; make that permanent by torch.nn.utils.prune.remove"
    return f"its {name} is computed by a parametrization, such as weight_norm; remove that first"


def _refusal(
    layer: nn.Module, form: type[QuantLayer], inner: set[int], read: Mapping[int, str]
) -> str | None:
    """Return why a layer that has a quantized form cannot be replaced, or None."""
    if isinstance(layer, QuantLayer | QuantMultiheadAttention):
        return None
    kind = form.plain
    if id(layer) in inner:
        return "its nn.MultiheadAttention stays whole and reads its weight directly"
    if type(layer).forward is not kind.forward or "forward" in vars(layer):
        return f"{type(layer).__name__} has its own forward"
    for name in form.tensors:
        computed = _computed(layer, name)
        if computed is not None:
            return computed
    if members := _own_members(layer, kind):
        return f"{type(layer).__name__} has its own {', '.join(members[:3])}"
    if id(layer) in read:
        return f"{read[id(layer)]} reads its weight directly"
    return form.obstacle(layer)


def candidates(model: nn.Module) -> Iterator[tuple[str, nn.Module, str | None]]:
    """Yield what has a quantized form, once each: name, layer, why it cannot be replaced."""
    read = directly_read(model)
    inner: set[int] = set()
    for module in model.modules():
        attention = isinstance(module, nn.MultiheadAttention)
        if attention and _refusal(module, QuantProjection, set(), read) is not None:
            inner |= {id(below) for below in module.children()}
    for name, module in model.named_modules():
        kind = kind_of(module)
        if kind is not None:
            yield name, module, _refusal(module, kind, inner, read)
        elif isinstance(module, PlacedOperation):
            yield name, module, None


def _no_match(pattern: str, names: list[str], argument: str) -> InputError:
    inner = [f"{pattern}.*"] if any(n.startswith(f"{pattern}.") for n in names) else []
    hint = f" Did you mean {inner[0]!r}?" if inner else suggest(pattern, names)
    return InputError(
        f"{argument}: {pattern!r} matches no layer that can be quantized.{hint}"
        f" Layers: {', '.join(names[:6])}{', ...' if len(names) > 6 else ''}"
    )


def _matches(patterns: Iterable[str], names: list[str], argument: str) -> dict[str, set[str]]:
    """Return the names each pattern matches; a pattern without a match is an error."""
    matched = {p: {n for n in names if fnmatchcase(n, p)} for p in patterns}
    for pattern, found in matched.items():
        if not found:
            raise _no_match(pattern, names, argument)
    return matched


def patterns_of(exclude: Any) -> list[str]:
    """Return the patterns of ``exclude``; a string is one pattern."""
    patterns = (
        [exclude]
        if isinstance(exclude, str | bytes) or not isinstance(exclude, Iterable)
        else exclude
    )
    found = list(patterns)
    for pattern in found:
        if not isinstance(pattern, str):
            raise InputError(
                f"exclude: expected names or globs of layers, got {seen(pattern)};"
                " pass a list of strings"
            )
    return found


def _check_overrides(overrides: Any) -> None:
    """Require a mapping of names or globs to mappings."""
    if not isinstance(overrides, Mapping):
        raise InputError(
            f"overrides: expected a dictionary of names or globs, got {seen(overrides)};"
            ' pass {"name": {"weight_bits": 4}}'
        )
    for pattern, options in overrides.items():
        if not isinstance(pattern, str) or not isinstance(options, Mapping):
            raise InputError(
                f"overrides: expected a name or glob with a dictionary of options, got"
                f' {seen(pattern)}: {seen(options)}; pass {{"name": {{"weight_bits": 4}}}}'
            )


def _changed(spec: LayerSpec, options: Mapping[str, Any], base: LayerSpec) -> LayerSpec:
    """Return a spec with other options; the base's ``weight_levels`` are for SEQ of its width."""
    made = replace(spec, **options)
    if "weight_levels" in options or not options.keys() & {"weight_bits", "weight_method"}:
        return made
    alike = made.weights_by == "seq" and made.weight_bits == base.weight_bits
    return replace(made, weight_levels=base.weight_levels if alike else None)


def _first_and_last(base: LayerSpec, names: list[str]) -> dict[str, LayerSpec]:
    """Return the specs of the first and the last layer, where ``first_last`` sets them apart."""
    if base.first_last == "same":
        return {}
    bits = 8 if base.first_last == "8bit" else None
    given = {
        key: None if getattr(base, key) is None else bits for key in ("weight_bits", "act_bits")
    }
    spec = _changed(base, given, base)
    return dict.fromkeys([*names[:1], *names[-1:]], spec)


def note_first_and_last(layers: Iterable[nn.Module], base: LayerSpec) -> None:
    """Tell the first and the last layer so, where ``first_last`` sets them apart."""
    computing = [layer for layer in layers if "weight_bits" in widths_of(layer)]
    if base.first_last != "same":
        for layer in (*computing[:1], *computing[-1:]):
            layer.__dict__["first_or_last"] = base.first_last


def _overridden(
    specs: dict[str, LayerSpec],
    overrides: Mapping[str, Mapping[str, Any]],
    widths: Mapping[str, tuple[str, ...]],
    base: LayerSpec,
) -> dict[str, LayerSpec]:
    """Return the specs with what ``overrides`` change."""
    changed = dict(specs)
    for pattern, found in _matches(overrides, list(specs), "overrides").items():
        where = f"overrides[{pattern!r}]"
        for key in overrides[pattern]:
            if key not in OVERRIDABLE:
                raise unknown(f"key in {where}", key, OVERRIDABLE)
        _check_widths(where, overrides[pattern], {name: widths[name] for name in found})
        for name in found:
            changed[name] = _changed(changed[name], overrides[pattern], base)
            changed[name].check(where)
    return changed


def _check_widths(
    where: str, options: Mapping[str, Any], widths: Mapping[str, tuple[str, ...]]
) -> None:
    """Require that each width given is one of some layer."""
    first = min(widths)
    for key in (*WIDTHS, "weight_levels"):
        width = key.replace("levels", "bits")  # levels are of weights that have it
        if key in options and not any(width in own for own in widths.values()):
            raise InputError(
                f"{where}: {first} has no {key}; its widths are given by"
                f" {' and '.join(widths[first])}, so pass that"
            )


def _with_own_widths(spec: LayerSpec, widths: tuple[str, ...]) -> LayerSpec:
    """Return a spec whose ``weight_bits`` and ``act_bits`` are those of a layer of such widths."""
    weight = "embedding_bits" if "embedding_bits" in widths else "weight_bits"
    return replace(
        spec,
        weight_bits=getattr(spec, weight) if weight in widths else None,
        weight_levels=spec.weight_levels if "weight_bits" in widths else None,
        act_bits=spec.act_bits if "act_bits" in widths else None,
    )


def specs_of(
    layers: Mapping[str, nn.Module],
    refused: Mapping[str, str],
    base: LayerSpec,
    exclude: Iterable[str],
    overrides: Mapping[str, Mapping[str, Any]],
) -> dict[str, LayerSpec]:
    """Return the spec of every layer to quantize; exclude beats overrides beats first_last.

    An embedding's ``weight_bits`` are the given ``embedding_bits`` there, and it is never first or
    last, nor is a placed operation: the layers meant are those that compute with weights.
    ``exclude`` may also name the layers that are ``refused``, by their reasons.
    """
    _check_overrides(overrides)
    widths = {name: widths_of(layer) for name, layer in layers.items()}
    computing = [name for name in layers if "weight_bits" in widths[name]]
    specs = dict.fromkeys(layers, base) | _first_and_last(base, computing)
    specs = _overridden(specs, overrides, widths, base)
    specs = {name: _with_own_widths(spec, widths[name]) for name, spec in specs.items()}
    every = [*layers, *refused]
    excluded = set().union(*_matches(patterns_of(exclude), every, "exclude").values())
    return {n: s for n, s in specs.items() if n not in excluded}


def followed_by_batchnorm(model: nn.Module) -> set[int]:
    """Return the ids of layers whose next weighted module is a BatchNorm of their width."""
    found: set[int] = set()
    previous: Any = None
    for module in model.modules():
        kind = kind_of(module)
        if kind is not None:
            previous = module, kind
        elif next(module.parameters(recurse=False), None) is not None:
            norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
            if norm and previous is not None:
                layer, form = previous
                if form.output_channels(layer) == module.num_features:
                    found.add(id(layer))
            previous = None
    return found
