"""``--bits FILE``: other widths for single layers, and layers that stay in full precision."""

from pathlib import Path
from typing import Any

from .._errors import InputError, seen
from ._from_file import read_values

FULL = "fp"
KEYS = ("weight_bits", "act_bits")
FORM = 'give [weight bits, activation bits], or "fp" for full precision'


def read_widths(path: Path) -> dict[str, Any]:
    """Return a file's layers as ``overrides`` and ``exclude`` of :func:`daqakd.quantize`.

    Every line is a name or a glob in quotes: ``"layer1.*" = [2, 4]``, ``"conv1" = [4, "fp"]`` for
    weights alone, or ``"fc" = "fp"``.

    Raises:
        InputError: it is no TOML, or a line says something else.
        OSError: it cannot be read.
    """
    values = read_values(path)
    for name, value in values.items():
        if value != FULL and not _is_pair(value):
            nested = " and put names with dots in quotes" if isinstance(value, dict) else ""
            raise InputError(f"bits: {path}: {name!r} is {seen(value)}; {FORM}{nested}")
    pairs = {name: value for name, value in values.items() if value != FULL}
    return {
        "overrides": {
            name: {
                key: None if bits == FULL else bits for key, bits in zip(KEYS, pair, strict=True)
            }
            for name, pair in pairs.items()
        },
        "exclude": [name for name, value in values.items() if value == FULL],
    }


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2
