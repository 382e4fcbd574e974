"""``daqakd bench``: every provider of an op on every size and dtype, as a table."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .. import _console
from .._arguments import check_integer, device_of
from .._errors import InputError, unknown
from .._lock import working_in
from ..train.environment import environment
from . import peers, providers, roofline
from .book import write_book
from .measure import Case, Measurement, Provider, compare
from .providers import Own, providers_of
from .registry import BENCHMARKS, NUM_IMAGES, SIZES, find

MOST_ELEMENTS = 2**36
MOST_TURNS = 10**6
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
COLUMNS = {
    "op": 17,
    "elements": 9,
    "dtype": 9,
    "form": 17,
    "provider": 15,
    "us": 10,
    "x compile": 10,
    "of floor": 9,
    "images/s": 11,
}
DEVICE_COLUMNS = {"us on device": 12, "its floor": 9, "launches": 8}  # on a GPU only


def check(
    ops: Collection[str],
    sizes: Collection[int],
    dtypes: Collection[str],
    rounds: int,
    num_images: int,
) -> None:
    """Raise InputError for what cannot be measured; messages have the command's options."""
    for name, chosen in (("op", ops), ("size", sizes), ("dtype", dtypes)):
        if not chosen:
            raise InputError(f"{name}: expected at least one, got none")
    for name, given, known in (("op", ops, [*BENCHMARKS]), ("dtype", dtypes, [*DTYPES])):
        for one in given:
            if one not in known:
                raise unknown(name, one, known)
    for size in sizes:
        check_integer("size", size, 64, MOST_ELEMENTS)
    check_integer("turns", rounds, 1, MOST_TURNS)
    check_integer("images", num_images, 1, MOST_ELEMENTS)


def cases(
    ops: Iterable[str],
    sizes: Iterable[int],
    dtypes: Iterable[str],
    device: str,
    num_images: int,
    own: Sequence[Own] = (),
) -> Iterator[tuple[Case, dict[str, Provider]]]:
    """Yield every case with its providers; a benchmark takes the sizes that it counts in."""
    choices = {"elements": tuple(sizes), "images": (num_images,), "model": (0,)}
    names = tuple(dtypes)
    for op in ops:
        benchmark = find(op)
        for size in choices[benchmark.size_unit]:
            for name in names:
                for form in benchmark.forms:
                    case = benchmark.case(size, DTYPES[name], form, device)
                    yield case, providers_of(benchmark, device, own)


def bench(
    ops: Collection[str],
    sizes: Collection[int],
    dtypes: Collection[str],
    device: str,
    rounds: int,
    num_images: int = NUM_IMAGES,
    provider: Sequence[str] = (),
    *,
    keep: Callable[[dict[str, Any]], None] = lambda record: None,
) -> dict[str, Any]:
    """Measure, printing each case's rows as they come; return what ``bench.json`` holds.

    ``keep`` gets the same after every case; ``provider`` names own functions.
    """
    check(ops, sizes, dtypes, rounds, num_images)
    device_of(device)
    own, skipped = _own(provider, ops, device)
    speed = roofline.copy_speed(device)
    _console.say(f"copy on {device}: {speed / 1e9:.1f} GB/s read and written = 100 % of the floor")
    widths = COLUMNS | (DEVICE_COLUMNS if device == "cuda" else {})
    _console.say(_line(widths, widths))
    rows: list[dict[str, Any]] = []
    record = _made(device, speed, rounds, skipped) | {"rows": rows}
    for case, timed in cases(ops, sizes, dtypes, device, num_images, own):
        measured = compare(case, timed, rounds)
        rows += [one.record() for one in measured]
        keep(record)
        for one in measured:
            _console.say(_line(_cells(one, measured), widths))
    for name, reason in skipped.items():
        _console.say(f"skipped: {name} ({reason})")
    return record


def _own(
    names: Sequence[str], ops: Collection[str], device: str
) -> tuple[list[Own], dict[str, str]]:
    """Return own functions, and who is not timed, each with the reason."""
    found, skipped = providers.installed()
    asked = providers.named(names)
    providers.check(asked, ops, device)
    return asked + found, skipped | providers.skipped(ops, device)


def _made(device: str, speed: float, rounds: int, skipped: dict[str, str]) -> dict[str, Any]:
    """Return what a file says of its rows."""
    made = environment()
    made["packages"] |= peers.versions()
    facts = {"device": device, "copy_bytes_per_second": speed, "turns": rounds}
    return made | facts | {"skipped": skipped}


def bench_into(out: Path, *arguments: Any) -> None:
    """Measure as :func:`bench` does; ``bench.json`` in ``out`` has every case that is done.

    ``bench.csv`` has the same rows.
    """
    path = out / "bench.json"
    with working_in(out, "out"):
        bench(*arguments, keep=partial(write_book, path))
    _console.say(f"wrote {path}")


def _cells(one: Measurement, case: list[Measurement]) -> tuple[str, ...]:
    """Return a row's cells; ``x compile`` says how many times the speed of torch.compile it has."""
    compiled = next((m.seconds for m in case if m.provider == "compile"), None)
    start = (one.op, f"{one.elements}", one.dtype, one.form, one.provider)
    if one.seconds is None:
        return (*start, "-", "-", f"- ({one.note})", "", *_device_cells(one))
    ratio = f"{compiled / one.seconds:.2f}" if compiled else "-"
    rate = "-" if one.images_per_second is None else f"{one.images_per_second:,.0f}"
    wall = f"{1e6 * one.seconds:.1f}", ratio, _percent(one.of_roofline), rate
    return (*start, *wall, *_device_cells(one))


def _device_cells(one: Measurement) -> tuple[str, ...]:
    if one.device is None:
        return ()
    seconds, launches = one.device["device_seconds"], one.device["launches"]
    microseconds = "-" if seconds is None else f"{1e6 * seconds:.1f}"
    shown = "-" if launches is None else str(launches)
    return microseconds, _percent(one.device["device_of_floor"]), shown


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{fraction:.0%}"


def _line(cells: Iterable[str], widths: Mapping[str, int]) -> str:
    pairs = zip(cells, widths.values(), strict=True)
    return "  ".join(cell.ljust(width) for cell, width in pairs).rstrip()


__all__ = ["DTYPES", "NUM_IMAGES", "SIZES", "bench", "bench_into", "check"]
