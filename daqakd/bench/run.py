"""``daqakd bench``: every contestant of an op on every size and dtype, as a table."""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from .. import _console
from .._errors import InputError
from .._files import write_json
from ..train.environment import environment
from . import roofline as floor
from .augment import AUGMENT
from .dorefa import DOREFA_ACTIVATION, DOREFA_WEIGHT
from .ewgs import EWGS
from .kd_loss import KD_LOSS
from .lsq import LSQ
from .many import MANY, RESNET20
from .measure import Case, Contestant, Row, compare
from .pact import PACT
from .step import STEP

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SIZES = (1024, 65536, 16777216)
IMAGES = 128


class Op(Protocol):
    """What can be measured: its forms, its cases, and who takes part on a device."""

    @property
    def forms(self) -> tuple[str, ...]:
        """What there is besides sizes and dtypes, such as the granularity."""

    def case(self, size: int, dtype: torch.dtype, form: str, device: str) -> Case:
        """Return a workload."""

    def contestants(self, device: str) -> dict[str, Contestant]:
        """Return who can run there, by name."""


OPS: dict[str, Op] = {
    "lsq": LSQ,
    "pact": PACT,
    "dorefa_activation": DOREFA_ACTIVATION,
    "dorefa_weight": DOREFA_WEIGHT,
    "ewgs": EWGS,
    "kd_loss": KD_LOSS,  # its forms are classes
    "many": MANY,
    "resnet20": RESNET20,  # its size is the model's
    "step": STEP,  # its size is images
    "augment": AUGMENT,  # so is its size, and its forms are policies
}
COLUMNS = {
    "op": 17,
    "elements": 9,
    "dtype": 9,
    "form": 17,
    "contestant": 15,
    "us": 10,
    "x compile": 10,
    "of floor": 9,
    "images/s": 11,
}


def check(sizes: Iterable[int], turns: int, images: int) -> None:
    """Raise InputError for what cannot be measured."""
    for size in sizes:
        if size < 64:
            raise InputError(f"size: expected at least 64 elements, got {size}")
    for name, count in (("turns", turns), ("images", images)):
        if count < 1:
            raise InputError(f"{name}: expected at least 1, got {count}")


def bench(
    ops: Iterable[str],
    sizes: Iterable[int],
    dtypes: Iterable[str],
    device: str,
    turns: int,
    images: int = IMAGES,
    *,
    keep: Callable[[dict[str, Any]], None] = lambda record: None,
) -> dict[str, Any]:
    """Measure, printing each case's rows as they come; return what ``bench.json`` holds.

    ``keep`` gets the same after every case.
    """
    check(sizes, turns, images)
    copy = floor.copy_speed(device)
    _console.say(f"copy on {device}: {copy / 1e9:.1f} GB/s read and written = 100 % of the floor")
    _console.say(_line(COLUMNS))
    own = {"step": (images,), "augment": (images,), "resnet20": (0,)}
    cases = [
        (OPS[op], size, DTYPES[name], form)
        for op in ops
        for size in own.get(op, tuple(sizes))
        for name in dtypes
        for form in OPS[op].forms
    ]
    rows: list[dict[str, Any]] = []
    record = {**environment(), "copy_bytes_per_second": copy, "turns": turns, "rows": rows}
    for op, size, dtype, form in cases:
        found = compare(op.case(size, dtype, form, device), op.contestants(device), turns)
        rows += map(asdict, found)
        keep(record)
        for row in found:
            _console.say(_line(_cells(row, found)))
    return record


def bench_into(out: Path, *arguments: Any) -> None:
    """Measure as :func:`bench` does; ``bench.json`` in ``out`` has every case that is done."""
    path = out / "bench.json"
    bench(*arguments, keep=partial(write_json, path))
    _console.say(f"wrote {path}")


def _cells(row: Row, case: list[Row]) -> tuple[str, ...]:
    """Return a row's cells; ``x compile`` says how many times the speed of torch.compile it has."""
    compiled = next((r.seconds for r in case if r.contestant == "compile"), None)
    start = (row.op, f"{row.elements}", row.dtype, row.form, row.contestant)
    if row.seconds is None:
        return (*start, "-", "-", f"- ({row.note})", "")
    ratio = f"{compiled / row.seconds:.2f}" if compiled else "-"
    share = "-" if row.of_floor is None else f"{row.of_floor:.0%}"
    rate = "-" if row.images_per_second is None else f"{row.images_per_second:,.0f}"
    return (*start, f"{1e6 * row.seconds:.1f}", ratio, share, rate)


def _line(cells: Iterable[str]) -> str:
    pairs = zip(cells, COLUMNS.values(), strict=True)
    return "  ".join(cell.ljust(width) for cell, width in pairs).rstrip()
