"""How a row is measured: verified first, contestants in turn, inputs rotated beyond the cache."""

import itertools
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from . import roofline as floor

BEYOND_CACHE = 2**28  # bytes of inputs that a row goes round
TURN_SECONDS = 0.01  # a turn is as many calls as this takes

Inputs = tuple[Any, ...]
Contestant = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """One workload: who is to compute what, on which inputs, and what a right result is.

    ``form`` tells apart what sizes and dtypes do not, such as the granularity. ``bind`` turns a
    contestant into a call on the inputs that ``make`` makes; ``verify`` returns what is wrong with
    a result, or None. ``images`` counts them where a call works on images.
    """

    op: str
    numel: int
    dtype: torch.dtype
    form: str
    device: str
    bind: Callable[[Contestant], Contestant]
    make: Callable[[], Inputs]
    verify: Callable[[Any, Inputs], str | None]
    images: int | None = None

    def floor_seconds(self) -> float | None:
        """Return the time in which the device copies as many bytes as the op has to move.

        None for work that is not bound by memory.
        """
        if self.op not in floor.BYTES:
            return None
        return floor.floor_seconds(self.op, self.numel, self.dtype, self.device)


@dataclass(frozen=True)
class Row:
    """What one contestant took for one case, or why it was not timed."""

    op: str
    elements: int
    dtype: str
    form: str
    contestant: str
    seconds: float | None
    of_floor: float | None
    images_per_second: float | None = None
    spread: float | None = None  # from the fastest to the slowest turn, as a share of the median
    note: str = ""


def rotation(case: Case) -> Iterator[Inputs]:
    """Go round inputs that together are larger than the cache, at most 8."""
    size = 2 * case.numel * case.dtype.itemsize
    copies = max(1, min(8, BEYOND_CACHE // max(1, size)))
    return itertools.cycle([case.make() for _ in range(copies)])


def problem(case: Case, run: Contestant) -> str | None:
    """Return why a contestant cannot be timed: it fails, or its result is wrong."""
    inputs = case.make()
    try:
        return case.verify(run(*inputs), inputs)
    except Exception as error:
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def turn(run: Contestant, inputs: Iterator[Inputs], calls: int) -> float:
    """Return the seconds of one call, the mean of ``calls``."""
    begin = floor.timer()
    for _ in range(calls):
        run(*next(inputs))
    return (floor.timer() - begin) / calls


def compare(case: Case, contestants: Mapping[str, Contestant], turns: int = 9) -> list[Row]:
    """Time who gives the right result, one turn each in turn; return medians in the given order."""
    runs = {name: case.bind(contestant) for name, contestant in contestants.items()}
    notes = {name: problem(case, run) for name, run in runs.items()}
    inputs = rotation(case)
    calls = {
        name: max(1, int(TURN_SECONDS / min(turn(run, inputs, 1) for _ in range(3))))
        for name, run in runs.items()
        if notes[name] is None
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, count in calls.items():
            times[name].append(turn(runs[name], inputs, count))
    return [_row(case, name, times.get(name), note) for name, note in notes.items()]


def _row(case: Case, name: str, times: list[float] | None, note: str | None) -> Row:
    median = statistics.median(times) if times else None
    least = case.floor_seconds()
    share = least / median if median and least else None
    rate = case.images / median if median and case.images else None
    spread = (max(times) - min(times)) / median if times and median else None
    dtype = str(case.dtype).removeprefix("torch.")
    return Row(case.op, case.numel, dtype, case.form, name, median, share, rate, spread, note or "")
