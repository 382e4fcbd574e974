"""How a provider is measured: results verified first, rounds interleaved, inputs beyond the cache.

As in Triton's performance reports, a provider is one implementation among those compared.
"""

import itertools
import statistics
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal, Protocol

import torch

from .device_time import DeviceTime, device_time
from .roofline import Traffic, timer

ROTATION_BYTES = 2**28  # inputs that the calls rotate through: more than any cache holds
ROUND_SECONDS = 0.01  # a round is as many calls as this takes

Inputs = tuple[Any, ...]
Provider = Callable[..., Any]
RECORD_KEYS = {"of_roofline": "of_floor"}  # as bench.json names them


def with_convention(text: str, *excused: str) -> Callable[[Provider], Provider]:
    """Mark a provider whose gradients follow another convention; its rows say which.

    Args:
        text: where its results differ.
        excused: what the check of an op may say of it all the same, such as ``"its input gradient
            is wrong"``. Values are checked before gradients, so they stay checked.
    """

    def mark(provider: Provider) -> Provider:
        provider.convention = text  # type: ignore[attr-defined]
        provider.excused = excused  # type: ignore[attr-defined]
        return provider

    return mark


@dataclass(frozen=True)
class Case:
    """One workload: its inputs, how a provider runs on them, and what a right result is.

    Args:
        op: name of the benchmark.
        numel: elements of the input.
        dtype: of the input.
        form: what sizes and dtypes do not tell apart, such as the granularity.
        device: ``"cpu"`` or ``"cuda"``.
        bind: turns a provider into a call on the inputs that ``make`` returns.
        make: returns new inputs.
        verify: returns what is wrong with a result for these inputs, or None.
        num_images: images of a call, where it works on images.
        traffic: what the op has to read and write; None for work that is not bound by memory.
        rotates: whether the calls rotate through inputs; False where one is beyond the cache.
    """

    op: str
    numel: int
    dtype: torch.dtype
    form: str
    device: str
    bind: Callable[[Provider], Provider]
    make: Callable[[], Inputs]
    verify: Callable[[Any, Inputs], str | None]
    num_images: int | None = None
    traffic: Traffic | None = None
    rotates: bool = True

    def roofline_seconds(self) -> float | None:
        """Return the least time that the traffic takes, None where memory is no bound."""
        if self.traffic is None:
            return None
        return self.traffic.seconds(self.numel, self.dtype, self.device)


class Benchmark(Protocol):
    """What can be measured: cases by size, dtype and form, and the providers on a device."""

    @property
    def op(self) -> str:
        """Its name, as rows have it."""

    @property
    def forms(self) -> tuple[str, ...]:
        """What there is besides sizes and dtypes, such as the granularity."""

    @property
    def size_unit(self) -> Literal["elements", "images", "model"]:
        """What a size counts; ``"model"`` where a model fixes it."""

    def case(self, size: int, dtype: torch.dtype, form: str, device: str) -> Case:
        """Return a workload."""

    def providers(self, device: str) -> dict[str, Provider]:
        """Return the providers that can run on ``device``, by name."""


@dataclass(frozen=True)
class Measurement:
    """The time of one provider on one case, or the reason why it was not timed."""

    op: str
    elements: int
    dtype: str
    form: str
    provider: str
    seconds: float | None
    of_roofline: float | None
    images_per_second: float | None = None
    spread: float | None = None  # slowest minus fastest round, as a fraction of the median
    note: str = ""  # why it was not timed
    convention: str = ""  # where its gradients are meant in another way
    device: dict[str, Any] | None = None  # columns of a GPU's own time, None on a CPU

    def record(self) -> dict[str, Any]:
        """Return a row of ``bench.json``."""
        row = {RECORD_KEYS.get(key, key): value for key, value in asdict(self).items()}
        device = row.pop("device")
        return row if device is None else row | device


def input_sets(case: Case) -> list[Inputs]:
    """Return inputs to rotate through, at most 8, that together are larger than the cache."""
    size = 2 * case.numel * case.dtype.itemsize
    copies = max(1, min(8, ROTATION_BYTES // max(1, size))) if case.rotates else 1
    return [case.make() for _ in range(copies)]


def rotation(case: Case) -> Iterator[Inputs]:
    """Cycle through the input sets."""
    return itertools.cycle(input_sets(case))


def first_line(error: Exception) -> str:
    """Return an error's type and the first line of what it says."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def problem(case: Case, run: Provider, excused: Collection[str] = ()) -> str | None:
    """Return why a provider cannot be timed: it raises, or its result is wrong and not excused."""
    inputs = case.make()
    try:
        found = case.verify(run(*inputs), inputs)
        return None if found in excused else found
    except Exception as error:
        return first_line(error)


def time_round(run: Provider, inputs: Iterator[Inputs], calls: int) -> float:
    """Return the seconds of one call, the mean of ``calls``."""
    begin = timer()
    for _ in range(calls):
        run(*next(inputs))
    return (timer() - begin) / calls


def _calls_per_round(run: Provider, inputs: Iterator[Inputs]) -> int:
    return max(1, int(ROUND_SECONDS / min(time_round(run, inputs, 1) for _ in range(3))))


def on_device(case: Case, run: Provider, inputs: Sequence[Inputs]) -> tuple[DeviceTime, str | None]:
    """Return a GPU's own time, and what is wrong with the result of the replayed graph."""
    calls = [partial(run, *one) for one in inputs]
    try:
        found = device_time(calls, capture=not getattr(run, "is_replay", False))
        wrong = None if found.result is None else case.verify(found.result, inputs[-1])
    except Exception as error:
        return DeviceTime(), f"on the device alone: {first_line(error)}"
    if wrong is not None:
        return DeviceTime(), f"replayed from a graph, {wrong}"
    return found._replace(result=None), None


def wall_times(
    runs: Mapping[str, Provider], inputs: Iterator[Inputs], rounds: int
) -> dict[str, list[float]]:
    """Time runs in interleaved rounds."""
    calls = {name: _calls_per_round(run, inputs) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(time_round(run, inputs, calls[name]))
    return times


def compare(case: Case, providers: Mapping[str, Provider], rounds: int = 9) -> list[Measurement]:
    """Time the providers whose result is right, in interleaved rounds.

    Returns:
        The medians in the order of ``providers``; a refused one has a note instead of a time.
    """
    runs = {name: case.bind(provider) for name, provider in providers.items()}
    notes = {
        name: problem(case, run, getattr(providers[name], "excused", ()))
        for name, run in runs.items()
    }
    accepted = {name: run for name, run in runs.items() if notes[name] is None}
    inputs = input_sets(case)
    times = wall_times(accepted, itertools.cycle(inputs), rounds)
    devices = dict.fromkeys(runs, DeviceTime()) if case.device == "cuda" else {}
    for name, run in accepted.items() if devices else ():
        devices[name], notes[name] = on_device(case, run, inputs)
    return [
        replace(
            _measurement(case, name, times.get(name), devices.get(name), note),
            convention=getattr(providers[name], "convention", ""),
        )
        for name, note in notes.items()
    ]


def _measurement(
    case: Case,
    provider: str,
    times: list[float] | None,
    device: DeviceTime | None,
    note: str | None,
) -> Measurement:
    median = statistics.median(times) if times else None
    least = case.roofline_seconds()
    return Measurement(
        op=case.op,
        elements=case.numel,
        dtype=str(case.dtype).removeprefix("torch."),
        form=case.form,
        provider=provider,
        seconds=median,
        of_roofline=least / median if median and least else None,
        images_per_second=case.num_images / median if median and case.num_images else None,
        spread=(max(times) - min(times)) / median if times and median else None,
        note=note or "",
        device=None if device is None else device.record(least),
    )
