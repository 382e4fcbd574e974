"""Who is timed on an op: what the package has, other libraries, and a user's own functions.

A user's function is named on the command line (``daqakd bench --provider package.module:function``)
or by a package's entry point in the group ``daqakd.bench_providers``. It gets ``(op, device)``,
such as ``("lsq", "cpu")``, and returns its providers of it by name, ``{}`` where there is none. A
provider is called as the op's own are, which ``daqakd/bench/<op>.py`` shows: LSQ's get ``(x, step,
form)`` and return the quantized ``x``. ``measure.with_convention`` marks one whose gradients are
meant in another way. ``benchmarks/own_provider.py`` is an example.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

from .._arguments import imported
from .._errors import InputError, first_line, seen
from . import peers
from .measure import Benchmark, Provider
from .registry import find

GROUP = "daqakd.bench_providers"
WANTED = "it gets (op, device) and returns {name: function}, {} where it has none"


class Own(NamedTuple):
    """A user's function, and how it was named."""

    name: str
    function: Callable[[str, str], Any]

    def providers(self, op: str, device: str) -> dict[str, Provider]:
        """Return the function's providers of an op.

        Raises:
            InputError: it raises, or returns something else.
        """
        try:
            found = self.function(op, device)
        except Exception as error:
            raise InputError(
                f"provider {self.name!r}: raises {first_line(error)} for {op!r}; {WANTED}"
            ) from error
        if not isinstance(found, Mapping) or not all(
            isinstance(name, str) and callable(one) for name, one in found.items()
        ):
            raise InputError(f"provider {self.name!r}: returned {seen(found)} for {op!r}; {WANTED}")
        return dict(found)


def named(names: Iterable[str]) -> list[Own]:
    """Return the functions that ``package.module:function`` names; InputError for none."""
    return [Own(name, imported("provider", name)) for name in names]


def installed() -> tuple[list[Own], dict[str, str]]:
    """Return the functions of installed packages, and why others cannot be had, by name."""
    found, broken = [], {}
    for point in entry_points(group=GROUP):
        try:
            found.append(_loaded(point))
        except Exception as error:  # whatever a package raises, the others are timed
            broken[point.name] = first_line(error)
    return found, broken


def _loaded(point: EntryPoint) -> Own:
    return Own(f"{point.name} ({point.value})", point.load())


def providers_of(benchmark: Benchmark, device: str, own: Sequence[Own] = ()) -> dict[str, Provider]:
    """Return all providers of a benchmark on ``device``: the package's, other libraries', own.

    Raises:
        InputError: an own one is wrong, or has the name of another.
    """
    found = benchmark.providers(device) | peers.providers_of(benchmark.op, device)
    for one in own:
        more = one.providers(benchmark.op, device)
        for name in more.keys() & found.keys():
            raise InputError(
                f"provider {one.name!r}: {benchmark.op} has a provider {name!r} already; use"
                " another name"
            )
        found |= more
    return found


def check(own: Sequence[Own], ops: Iterable[str], device: str) -> None:
    """Raise InputError for own functions that are wrong or have nothing for any of ``ops``."""
    ops = list(ops)
    for op in ops:
        providers_of(find(op), device, own)
    for one in own:
        if not any(one.providers(op, device) for op in ops):
            raise InputError(
                f"provider {one.name!r}: has none for {', '.join(ops)}; name its ops by --op"
            )


def skipped(ops: Iterable[str], device: str) -> dict[str, str]:
    """Return why libraries that have one of ``ops`` are not timed, by name."""
    return {name: reason for op in ops for name, reason in peers.skipped(op, device)}
