"""What a GPU run was to show: each aim, the rows that it is computed from, and what they say."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

Report = dict[str, Any]
Row = dict[str, Any]
Value = tuple[str, float]  # where, and how much
MEBI, KIBI = 2**20, 2**10
CASE = ("elements", "dtype", "form")
NAMED = ("classes", "what", "strategy", "data", "run")


@dataclass(frozen=True)
class Aim:
    """A limit for the worst of some values.

    Args:
        text: what is wanted, as a sentence without a subject.
        values: finds the values in a report; none where the rows are missing.
        least: the smallest that is right, or None.
        most: the largest that is right, or None.
    """

    text: str
    values: Callable[[Report], Iterable[Value]]
    least: float = -math.inf
    most: float = math.inf

    def missed(self, value: float) -> bool:
        """Return whether a value is beyond the limit; what was refused is."""
        return not self.least <= value <= self.most

    def outcome(self, report: Report) -> tuple[str, str]:
        """Return "met", "missed" or "not measured", and what was found."""
        found = sorted(self.values(report), key=lambda pair: (not math.isnan(pair[1]), pair[1]))
        if not found:
            return "not measured", ""
        where, worst = found[0] if self.most == math.inf else found[-1]
        late = [f"{name} {value:.4g}" for name, value in found if self.missed(value)]
        if late:
            more = f", and {len(late) - 4} more" if len(late) > 4 else ""
            return "missed", f"{len(late)} of {len(found)}: {'; '.join(late[:4])}{more}"
        return "met", f"{worst:.4g} at worst ({where}) of {len(found)}"


def place(row: Row) -> str:
    """Name a row."""
    return " ".join(str(row[key]) for key in (*CASE, *NAMED) if row.get(key) is not None)


def rows(report: Report, stage: str, **wanted: Any) -> Iterator[Row]:
    """Yield a stage's rows that have the wanted values, or for which the wanted test is true."""
    for row in report["rows"].get(stage, ()):
        found = ((row.get(key), value) for key, value in wanted.items())
        if all(value(held) if callable(value) else held == value for held, value in found):
            yield row


def column(stage: str, key: str, **wanted: Any) -> Callable[[Report], Iterator[Value]]:
    """Return a column of a stage; a row of ours that was refused counts as NaN."""
    wanted = {"provider": "native", **wanted}
    wanted = {name: value for name, value in wanted.items() if value is not None}

    def values(report: Report) -> Iterator[Value]:
        for row in rows(report, stage, **wanted):
            if row.get("note") or row.get(key) is not None:
                yield f"{stage} {place(row)}", math.nan if row.get("note") else row[key]

    return values


def ratio(
    stage: str, ours: str, others: str | None, key: str, **wanted: Any
) -> Callable[[Report], Iterator[Value]]:
    """Return ours over another's, or over the best of all others, case by case."""

    def values(report: Report) -> Iterator[Value]:
        for row in rows(report, stage, provider=ours, **wanted):
            same = {name: row[name] for name in CASE}
            name = (lambda held: held not in OURS) if others is None else others
            found = [r[key] for r in rows(report, stage, **same, provider=name) if r.get(key)]
            if found and row.get(key):
                yield f"{stage} {place(row)}", row[key] / min(found)

    return values


def together(*finders: Callable[[Report], Iterable[Value]]) -> Callable[[Report], Iterator[Value]]:
    """Return the values of several."""
    return lambda report: (value for find in finders for value in find(report))


def exit_code(*stages: str) -> Callable[[Report], Iterator[Value]]:
    """Return the exit codes of the stages that ran."""

    def values(report: Report) -> Iterator[Value]:
        for name in stages:
            stage = report["stages"].get(name)
            if stage is not None and not str(stage["says"]).startswith("skipped"):
                yield name, stage["code"]

    return values


def last(stage: str, key: str, **wanted: Any) -> Callable[[Report], Iterator[Value]]:
    """Return a column of a stage's last row."""

    def values(report: Report) -> Iterator[Value]:
        for row in list(rows(report, stage, **wanted))[-1:]:
            yield f"{stage} {place(row)}", row[key]

    return values


def at_least(size: int) -> Callable[[Any], bool]:
    """Return a test for ``size`` elements or more."""
    return lambda elements: elements is not None and elements >= size


def captured(report: Report) -> Iterator[Value]:
    """Yield for every row of ours whether a CUDA graph could hold it."""
    for stage in report["rows"]:
        for row in rows(report, stage, provider="native"):
            if row.get("timed_by"):
                yield f"{stage} {place(row)}", float(row["timed_by"] == "graph")


OURS = ("native", "triton", "reference", "recompute")
LARGE = at_least(60 * MEBI)  # of 64M, whatever whole rows of classes make of it
BEYOND_CACHES = at_least(15 * MEBI)
WIDE = ("1000", "32000").__contains__
SMALL = range(60 * KIBI, 64 * KIBI + 1).__contains__
FLOOR, WALL, DEVICE = "device_of_floor", "seconds", "device_seconds"

AIMS = (
    Aim("every kernel loads", exit_code("libraries"), most=0),
    Aim("the GPU tests pass", exit_code("tests"), most=0),
    Aim("compute-sanitizer finds nothing", exit_code("memcheck", "racecheck"), most=0),
    Aim("native calls can be captured in a graph (1 = yes)", captured, least=1),
    Aim("LSQ at 64M elements reaches 0.9 of the byte floor",
        column("lsq", FLOOR, elements=LARGE), least=0.9),
    Aim("LSQ takes at most 1.05 of torch.compile's wall time at any size",
        ratio("lsq", "native", "compile", WALL), most=1.05),
    Aim("PACT at 64M elements reaches 0.9 of the byte floor",
        column("pact", FLOOR, elements=LARGE), least=0.9),
    Aim("DoReFa and EWGS at 64M elements reach 0.9 of the byte floor",
        together(*(column(op, FLOOR, elements=LARGE)
                   for op in ("dorefa_activation", "dorefa_weight", "ewgs"))), least=0.9),
    Aim("ResNet-20's weights take 3 launches, forward and backward",
        column("resnet20", "launches"), most=3),
    Aim("kd_loss from 1,000 classes on reaches 0.85 of the byte floor beyond the caches",
        column("kd_loss", FLOOR, elements=BEYOND_CACHES, form=WIDE), least=0.85),
    Aim("kd_loss at 64K elements is no slower than any other, in wall time",
        ratio("kd_loss", "native", None, WALL, elements=SMALL), most=1.0),
    Aim("ranking's statistics take less than 0.01 of the teacher's pass",
        column("cmi", "share", provider=None,
               what=lambda what: str(what).startswith("statistics")), most=0.01),
    Aim("augmentation takes less than 0.05 of a training step",
        column("share", "share", provider=None), most=0.05),
    Aim("augmentation makes 100,000 images/s under every policy",
        column("augment", "images_per_second"), least=100_000),
    Aim("ranking 7 x 50,000 images takes less than 10 s after the first call",
        last("ranking", "wall_seconds"), most=10.0),
    Aim("CIFAR-10 is ranked in less than 10 s", last("cifar10", "wall_seconds"), most=10.0),
    Aim("one call for all weights is no slower than one for each, wall time of a step",
        together(*(ratio(op, "native", "native-single", WALL) for op in ("step", "kd_step"))),
        most=1.0),
    Aim("a distilled, fused W4A4 step takes at most 0.95 of the full-precision step's wall time",
        ratio("kd_step", "native-fused", "fp32", WALL), most=0.95),
    Aim("a distilled W4A4 step takes at most 1.15 of the full-precision step on the device",
        ratio("kd_step", "native", "fp32", DEVICE), most=1.15),
    Aim("a distilled ResNet-20 step at batch 512 passes 60,000 images/s",
        column("kd_step", "images_per_second"), least=60_000),
    Aim("training W4A4 makes 5 times the images of a plain loop",
        column("training", "of_loop", provider="lsq-graph"), least=5.0),
    Aim("training W4A4 takes at most 1.15 of training at full precision",
        column("training", "of_fp32", provider="lsq"), least=1 / 1.15),
    Aim("a compiled W4A4 step is no slower than with the formulas inlined",
        ratio("compiled_step", "inline-compile", "compile", WALL), most=1.0),
    Aim("batch norm, ReLU and quantizer in one take at most 1/1.8 of the eager chain",
        ratio("bn_act_quant", "native", "eager", DEVICE), most=1 / 1.8),
    Aim("batch norm, ReLU and quantizer in one take at most 1/1.2 of the compiled chain",
        ratio("bn_act_quant", "native", "compile", DEVICE), most=1 / 1.2),
)  # fmt: skip
