"""State dicts as other programs save them: nested, with prefixes of the wrappers around a model."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError

# where a state_dict lies in a checkpoint, the first that is there
PLACES = ["state_dict", "model", "net", "model_state_dict", "model_state", "weights", "params"]
PLACES += ["state_dict_ema", "model_ema", "ema", "ema_state_dict", "module", "teacher"]
# what torch puts into names where it wraps a module, at any depth
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
OPTIONAL = "num_batches_tracked"
MOST_NESTED = 4
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def state_of(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint's state_dict, ``module.`` and wrappers' names dropped.

    Raises:
        InputError: there is none in ``content``.
    """
    for _ in range(MOST_NESTED):
        inner = [content[k] for k in PLACES if isinstance(content, dict) and _holds(content, k)]
        if not inner:
            break
        content = inner[0]
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, expected a state_dict")
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        keys = ", ".join(map(str, list(content)[:5])) or "nothing"
        raise InputError(
            f"{path}: holds no tensors, expected a state_dict, alone or as one of"
            f" {', '.join(PLACES[:4])} (it holds {keys}); save the model's state_dict() alone"
        )
    return {_plain(k).removeprefix("module."): v for k, v in tensors.items()}


def _holds(content: Mapping[Any, Any], key: str) -> bool:
    return isinstance(content.get(key), dict) and bool(content[key])


def _plain(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def unwrapped(
    given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """Return the tensors under the names that a model wants, where all lie below one prefix.

    Lightning's ``model.``, SWA's ``module.`` beside its counter, an EMA's ``ema_model.``; the rest
    of the file then belongs to something else. Other tensors come back as they are.

    Raises:
        InputError: several models of the wanted names lie in the file.
    """
    plain = {_plain(name): value for name, value in given.items()}
    needed = {k for k in wanted if not k.endswith(OPTIONAL)}
    if needed <= plain.keys():
        return _counted_out(plain, wanted)
    found = [p for p in _prefixes(plain, needed) if all(p + k in plain for k in needed)]
    if len(found) > 1:
        raise InputError(
            f"{path}: holds several models, under the prefixes {', '.join(found)}; save the"
            " state_dict of the one you mean alone"
        )
    if not found:
        return plain
    return {k: plain[found[0] + k] for k in wanted if found[0] + k in plain}


def _counted_out(plain: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop the counter of an averaged model."""
    return {k: v for k, v in plain.items() if k in wanted or k != "n_averaged"}


def _prefixes(names: Mapping[str, Tensor], needed: set[str]) -> Iterator[str]:
    """Yield what stands before one of the needed names."""
    last = min(needed, default="")
    for name in names:
        if name.endswith(f".{last}"):
            yield name.removesuffix(last)


def check_values(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    """Require numbers that a model of these tensors can compute with.

    Raises:
        InputError: NaN, integers for floats, or a tensor without plain values.
    """
    for name in wanted.keys() & given.keys():
        value, kind = given[name], ""
        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            kind = "is sparse, quantized or without values"
        elif wanted[name].is_floating_point() and value.dtype in INTEGERS:
            kind = f"holds {value.dtype}, not floats"
        elif value.is_floating_point() and bool(value.isnan().any()):
            kind = "holds NaN"
        if kind:
            raise InputError(f"{path}: {name} {kind}; save the state_dict of a model that works")
