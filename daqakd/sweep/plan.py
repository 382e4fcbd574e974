"""The file of a sweep: options that all runs share, and a grid or a list of those that differ.

::

    command = "run"              # or "train"
    [options]
    data = "digits"
    [grid]                       # every combination
    bits = [2, 4]
    strategies = "paper"
    seeds = [0, 1, 2]
    [[list]]                     # each beside every combination of the grid
    method = "lsq"
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from .._errors import InputError, seen, unknown
from ..augment import strategies
from ..augment.strategies import PAPER

COMMANDS = ("run", "train")
KEYS = ("command", "options", "grid", "list")
MOST_ROWS = 10_000
LONGEST_NAME = 120
# what a grid may call them: one option, or several that have the same value
SHORT = {
    "bits": ("weight_bits", "act_bits"),
    "methods": ("method",),
    "models": ("model",),
    "seeds": ("seed",),
    "strategies": ("strategy",),
}


@dataclass(frozen=True)
class Row:
    """One run: its directory's name, what it does not share with all others, all its options."""

    name: str
    varied: dict[str, Any]
    options: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """The command that every row runs, and the rows in their order."""

    command: str
    rows: list[Row]

    @property
    def varied(self) -> list[str]:
        """The options that differ between rows, in the order of the file."""
        return list(dict.fromkeys(key for row in self.rows for key in row.varied))


def read_plan(values: Mapping[str, Any], source: Path) -> Plan:
    """Return the rows of a sweep's file, whose content is ``values``.

    Raises:
        InputError: naming ``source``, for what is no sweep.
    """
    try:
        return _plan(values)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error


def _plan(values: Mapping[str, Any]) -> Plan:
    for key in values:
        if key not in KEYS:
            raise unknown("key", key, list(KEYS))
    command = values.get("command", "run")
    if command not in COMMANDS:
        raise unknown("command of a sweep", command, list(COMMANDS))
    shared = _table("options", values.get("options", {}))
    combinations = _grid(_table("grid", values.get("grid", {})))
    listed = values.get("list", [{}])
    if not isinstance(listed, list) or not listed:
        raise InputError(f"list: expected tables ([[list]]), got {seen(listed)}")
    rows = [
        _row(shared, {**_spelt_out(_table("list", one)), **combination})
        for one, combination in product(listed, combinations)
    ]
    _check_names(rows)
    return Plan(command, rows)


def _table(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{name}: expected a table of options ([{name}]), got {seen(value)}")
    return {key.replace("-", "_"): one for key, one in value.items()}


def _grid(axes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every combination, the last axis changing fastest."""
    choices = [[_named(key, one) for one in _choices(key, values)] for key, values in axes.items()]
    total = 1
    for one in choices:
        total *= len(one)
    if total > MOST_ROWS:
        raise InputError(f"grid: expected at most {MOST_ROWS} rows, got {total}; split the sweep")
    return [{k: v for part in parts for k, v in part.items()} for parts in product(*choices)]


def _choices(key: str, values: Any) -> Sequence[Any]:
    """Return the values of an axis; two words stand for many strategies."""
    if key == "strategies" and values in ("paper", "all"):
        return PAPER if values == "paper" else strategies()
    if not isinstance(values, list) or not values:
        words = ", 'paper' or 'all'" if key == "strategies" else ""
        raise InputError(f"grid.{key}: expected a list of values{words}, got {seen(values)}")
    return values


def _named(key: str, value: Any) -> dict[str, Any]:
    return dict.fromkeys(SHORT.get(key, (key,)), value)


def _spelt_out(one: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for key, value in one.items() for k, v in _named(key, value).items()}


def _row(shared: Mapping[str, Any], varied: dict[str, Any]) -> Row:
    twice = next((key for key in varied if key in shared), None)
    if twice is not None:
        raise InputError(
            f"options.{twice}: {seen(shared[twice])} for all rows, but they also vary it; drop one"
            " of the two"
        )
    return Row(name_of(varied), varied, {**shared, **varied})


def name_of(varied: Mapping[str, Any], without: str = "row") -> str:
    """Return a directory's name that tells the options apart, and does not depend on others."""
    whole = ",".join(f"{key}={value}" for key, value in varied.items()) or without
    plain = re.sub(r"[^\w.+@=,-]", "_", whole)
    if plain == whole and len(plain) <= LONGEST_NAME:
        return plain
    return f"{plain[:LONGEST_NAME]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def _check_names(rows: Sequence[Row]) -> None:
    names = [row.name for row in rows]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"rows: {twice} is there twice; name every combination once")
