"""Compositions: operations by name and magnitude, such as ``rotate@12+color@20``.

The operations and magnitudes 0 to 30 are TrivialAugment's (Mueller and Hutter, ICCV 2021); an
operation with a sign draws it per image.
"""

import torch

from .._errors import InputError, seen, unknown
from . import draws
from .ranges import ENHANCE, GEOMETRIC, IMAGE_OPS, TRIVIALAUGMENT
from .settings import ImageContext

NAMES = {name.lower(): name for name in ("Identity", *GEOMETRIC, *ENHANCE, *IMAGE_OPS)}
WITHOUT_MAGNITUDE = frozenset({"identity", "autocontrast", "equalize"})
MAX_MAGNITUDE = TRIVIALAUGMENT.num_bins - 1
MAX_OPERATIONS = 3  # of one composition

Operation = tuple[str, int]  # torchvision's name, magnitude from 0 to MAX_MAGNITUDE


def is_composition(name: str) -> bool:
    """Whether a strategy's name has the form of a composition."""
    return "@" in name or "+" in name or name in NAMES


def _operation(text: str, composition: str) -> Operation:
    name, at, magnitude = text.partition("@")
    if name not in NAMES:
        raise unknown("operation", name, list(NAMES))
    if name in WITHOUT_MAGNITUDE:
        if at:
            raise InputError(
                f"composition {composition!r}: {name} has no magnitude; write {name!r}"
            )
        return NAMES[name], 0
    digits = magnitude.isascii() and magnitude.isdecimal() and len(magnitude) < 9
    if not digits or int(magnitude) > MAX_MAGNITUDE:
        raise InputError(
            f"composition {seen(composition)}: {name} needs a magnitude of 0 to {MAX_MAGNITUDE},"
            f" such as '{name}@{MAX_MAGNITUDE // 2}', got {seen(text)}"
        )
    return NAMES[name], int(magnitude)


def parse(name: str) -> list[Operation]:
    """Return the operations of a composition, in their order.

    Raises:
        InputError: an unknown operation, a wrong magnitude, or too many operations.
    """
    parts = name.split("+")
    if len(parts) > MAX_OPERATIONS:
        raise InputError(
            f"composition {seen(name)}: expected at most {MAX_OPERATIONS} operations, got"
            f" {len(parts)}"
        )
    return [_operation(part, name) for part in parts]


def describe(name: str, height: int, width: int) -> list[dict[str, str | int | float | None]]:
    """Return each operation with its magnitude, as a number up to 30 and in its own unit."""
    context = ImageContext(height, width)
    rows: list[dict[str, str | int | float | None]] = []
    for operation, magnitude in parse(name):
        bare = operation.lower() in WITHOUT_MAGNITUDE
        value = None if bare else TRIVIALAUGMENT.magnitudes(operation, context)[magnitude]
        number = None if bare else magnitude
        rows.append({"operation": operation.lower(), "magnitude": number, "value": value})
    return rows


def random_compositions(count: int, seed: int) -> list[str]:
    """Return ``count`` different compositions of two operations, the same for the same seed."""
    names, found = list(NAMES), dict[str, None]()
    for number in range(100 * count):
        words = draws.philox(seed, 0, torch.tensor([number]), draws.COMPOSITION)[0]
        which = draws.choose(words[:2], len(names)).tolist()
        magnitudes = (1 + draws.choose(words[2:], MAX_MAGNITUDE)).tolist()
        pairs = zip((names[w] for w in which), magnitudes, strict=True)
        found["+".join(n if n in WITHOUT_MAGNITUDE else f"{n}@{m}" for n, m in pairs)] = None
        if len(found) == count:
            break
    return list(found)
