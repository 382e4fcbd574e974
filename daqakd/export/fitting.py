"""Loading tensors into a model, or saying how the two differ."""

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from .._errors import InputError
from .._files import damaged
from ..quant import quantize
from . import packed
from .batchnorm import FOLDED, fold_batchnorm, folded_norms
from .foreign import check_values, unwrapped

RECIPE = "quantize"  # the metadata entry that holds the arguments of quantize()


def loaded(
    model: nn.Module, tensors: Mapping[str, Tensor], facts: Mapping[str, str], path: Path, name: str
) -> nn.Module:
    """Return a full-precision model with a file's tensors, quantized where they are a student's.

    A packed student computes bit for bit what the unpacked one does.

    Args:
        model: of the file's architecture; changed where nothing is quantized.
        tensors: of the file at ``path``.
        facts: its metadata.
        path: for errors.
        name: of the model, likewise.

    Raises:
        InputError: the tensors are another model's, or the file is damaged.
    """
    if RECIPE in facts:
        model = _quantized(model, facts[RECIPE], path)
    if FOLDED in facts:
        model = _folded(model, facts[FOLDED], path, name)
    layers = facts.get(packed.FACT)
    if layers is None:
        return fit(model, tensors, path, name)
    codes = packed.unpack(tensors, layers, path)
    packed.untie(model)
    model = fit(model, codes, path, name, are_codes=True)
    return packed.decode(model, codes, tensors, layers, path)


def _quantized(model: nn.Module, recipe: str, path: Path) -> nn.Module:
    """Return the model quantized by the recipe in its file."""
    try:
        return quantize(model, **json.loads(recipe))
    except (ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise damaged(path, f"its recipe cannot be read: {error}") from error


def _folded(model: nn.Module, names: str, path: Path, name: str) -> nn.Module:
    """Return the model without the BatchNorms that the file's has folded."""
    folded = fold_batchnorm(model)
    wanted, found = json.loads(names), folded_norms(folded)
    if found != wanted:
        raise InputError(
            f"{path}: has {len(wanted)} BatchNorms folded, and {name} has {len(found)} that can be;"
            " pass a model of the same code"
        )
    return folded


def fit(
    model: nn.Module, tensors: Mapping[str, Tensor], path: Path, name: str, are_codes: bool = False
) -> nn.Module:
    """Load the tensors of a file into a model, in place, and return it in eval mode.

    ``name`` is the model's, for errors; ``are_codes`` tells that a packed file's are checked.

    Raises:
        InputError: they are another model's, or no numbers.
    """
    wanted = model.state_dict()
    given = unwrapped(tensors, wanted, path)
    optional = {k for k in wanted if k.endswith("num_batches_tracked")}
    missing = sorted(wanted.keys() - given.keys() - optional)
    extra = sorted(given.keys() - wanted.keys())
    shapes = [  # steps had no dimension in files of before
        k for k in wanted if k in given and (wanted[k].shape or (1,)) != (given[k].shape or (1,))
    ]
    if missing or extra or shapes:
        parts = [
            f"{what} {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}"
            for what, keys in (("lacks", missing), ("has unknown", extra))
            if keys
        ]
        parts += [
            f"{k} is {tuple(given[k].shape)}, not {tuple(wanted[k].shape)}" for k in shapes[:3]
        ]
        raise InputError(
            f"{path}: does not fit {name} with {outputs_of(model)} classes: {'; '.join(parts)}."
            " Pass the right --model, or a teacher for these classes"
        )
    if not are_codes:
        check_values(given, wanted, path)
    model.load_state_dict(given, strict=False)
    return model.eval()


def outputs_of(model: nn.Module) -> int:
    """Return the width of a model's last linear layer, 0 where there is none."""
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    return linear[-1].out_features if linear else 0
