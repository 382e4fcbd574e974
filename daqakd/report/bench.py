"""``daqakd bench``: every contestant of an op on every size and dtype, as a table."""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from .. import _console
from .._errors import InputError
from .._files import write_json
from ..train.environment import environment
from . import contestants_lsq, floor
from .measure import Case, Contestant, Row, compare

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SIZES = (1024, 65536, 16777216)
PER = ("tensor", "channel")
# op -> its cases by size, dtype, granularity and device; its contestants by device
OPS: dict[str, tuple[Callable[..., Case], Callable[[str], dict[str, Contestant]]]] = {
    "lsq": (contestants_lsq.case, contestants_lsq.contestants),
}
HEADS = ("op", "elements", "dtype", "per", "contestant", "us", "x compile", "of floor")


def check(sizes: Iterable[int], turns: int) -> None:
    """Raise InputError for what cannot be measured."""
    for size in sizes:
        if size < 64:
            raise InputError(f"size: expected at least 64 elements, got {size}")
    if turns < 1:
        raise InputError(f"turns: expected at least 1, got {turns}")


def bench(
    ops: Iterable[str], sizes: Iterable[int], dtypes: Iterable[str], device: str, turns: int
) -> dict[str, Any]:
    """Measure, printing each case's rows as they come; return what ``bench.json`` holds."""
    check(sizes, turns)
    copy = floor.copy_speed(device)
    _console.say(f"copy on {device}: {copy / 1e9:.1f} GB/s read and written = 100 % of the floor")
    _console.say(_line(HEADS))
    cases = [
        (make(size, DTYPES[dtype], per, device), contestants(device))
        for make, contestants in (OPS[op] for op in ops)
        for size in sizes
        for dtype in dtypes
        for per in PER
    ]
    rows: list[Row] = []
    for case, contestants in cases:
        found = compare(case, contestants, turns)
        rows += found
        for row in found:
            _console.say(_line(_cells(row, found)))
    record = {"copy_bytes_per_second": copy, "turns": turns, "rows": [asdict(r) for r in rows]}
    return {**environment(), **record}


def bench_into(out: Path, *arguments: Any) -> None:
    """Measure as :func:`bench` does and leave ``bench.json`` in ``out``."""
    path = out / "bench.json"
    write_json(path, bench(*arguments))
    _console.say(f"wrote {path}")


def _cells(row: Row, case: list[Row]) -> tuple[str, ...]:
    """Return a row's cells; ``x compile`` says how many times the speed of torch.compile it has."""
    compiled = next((r.seconds for r in case if r.contestant == "compile"), None)
    start = (row.op, f"{row.elements}", row.dtype, row.per, row.contestant)
    if row.seconds is None or row.of_floor is None:
        return (*start, "-", "-", f"- ({row.note})")
    ratio = f"{compiled / row.seconds:.2f}" if compiled else "-"
    return (*start, f"{1e6 * row.seconds:.1f}", ratio, f"{row.of_floor:.0%}")


def _line(cells: Iterable[str]) -> str:
    widths = (4, 9, 9, 8, 10, 10, 10, 9)
    return "  ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)).rstrip()
