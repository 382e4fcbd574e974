"""Two files of rows beside each other: ``daqakd bench compare A.json B.json``."""

import csv
import io
import math
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._errors import InputError
from .._files import write_text
from .book import Book, Key, Row

LEAST_WIDTH, MOST_WIDTH = 60, 100
SHORT = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "float64": "f64"}
HEADS = ("elements", "dtype", "form", "provider", "A us", "B us", "A / B", "")
FLEXIBLE = (2, 3)  # columns of names, which may be cut
WITHIN = "~"


@dataclass(frozen=True)
class Pair:
    """A row that two files have.

    Args:
        key: what is timed.
        a, b: seconds.
        noise: the larger of the spreads of its rounds, as a fraction.
    """

    key: Key
    a: float
    b: float
    noise: float

    @property
    def ratio(self) -> float:
        """How many times as fast B is."""
        return self.a / self.b

    @property
    def within_noise(self) -> bool:
        """Whether rounds of one file differ by as much."""
        return abs(math.log(self.ratio)) <= math.log1p(self.noise)


@dataclass(frozen=True)
class Comparison:
    """Pairs by op, and the rows that only one of two files has a time for."""

    a: Book
    b: Book
    pairs: list[Pair]
    only_a: list[Key]
    only_b: list[Key]

    def by_op(self) -> dict[str, list[Pair]]:
        """Return the pairs of each op, in order."""
        found: dict[str, list[Pair]] = {}
        for pair in self.pairs:
            found.setdefault(str(pair.key[0]), []).append(pair)
        return found

    def warnings(self) -> list[str]:
        """Return what keeps the times from being comparable."""
        facts = ("processor", "gpu", "threads", "device")
        apart = [name for name in facts if self.a.record.get(name) != self.b.record.get(name)]
        return [f"the files differ in {', '.join(apart)}"] if apart else []


def compare_books(a: Book, b: Book) -> Comparison:
    """Pair the rows of two files.

    Raises:
        InputError: they have no row in common.
    """
    first, second = a.timed, b.timed
    pairs = [_pair(key, row, second[key]) for key, row in first.items() if key in second]
    if not pairs:
        raise InputError(
            f"{a.path} and {b.path} have no timed row in common; time the same ops, sizes, dtypes"
        )
    only_b = [key for key in second if key not in first]
    return Comparison(a, b, pairs, [key for key in first if key not in second], only_b)


def _pair(key: Key, a: Row, b: Row) -> Pair:
    noise = max(a.get("spread") or 0.0, b.get("spread") or 0.0)
    return Pair(key, a["seconds"], b["seconds"], noise)


def mean_ratio(pairs: Iterable[Pair]) -> float:
    """Return the geometric mean of the ratios."""
    logs = [math.log(pair.ratio) for pair in pairs]
    return math.exp(sum(logs) / len(logs))


def _cells(pair: Pair) -> list[str]:
    _, elements, dtype, form, provider = pair.key
    times = (f"{1e6 * seconds:.1f}" for seconds in (pair.a, pair.b))
    shown = SHORT.get(dtype, dtype)
    mark = WITHIN if pair.within_noise else ""
    return [str(elements), shown, form, provider, *times, f"{pair.ratio:.2f}", mark]


def named(key: Key) -> str:
    """Return a row's name."""
    return " ".join(map(str, key))


def terminal_width() -> int:
    """Return the width of a table here."""
    return min(MOST_WIDTH, max(LEAST_WIDTH, shutil.get_terminal_size((MOST_WIDTH, 1)).columns))


def terminal_table(found: Comparison, width: int) -> list[str]:
    """Return the lines of a table that is at most ``width`` wide, which is at least 60."""
    rows = {op: [_cells(pair) for pair in pairs] for op, pairs in found.by_op().items()}
    widths = _widths([list(HEADS), *(row for group in rows.values() for row in group)], width)
    lines = [f"A: {found.a.path}", f"   {found.a.machine}"]
    lines += [f"B: {found.b.path}", f"   {found.b.machine}"]
    lines += [f"A / B: speed of B by that of A; {WITHIN}: within the rounds' spread"]
    lines += [f"careful: {text}" for text in found.warnings()]
    lines += ["", _line(HEADS, widths)]
    for op, pairs in found.by_op().items():
        mean = f"{mean_ratio(pairs):.2f}"
        lines += [f"{op}: geometric mean {mean} of {len(pairs)}"]
        lines += [_line(row, widths) for row in rows[op]]
    for file, keys in (("A", found.only_a), ("B", found.only_b)):
        lines += [f"only in {file}: {named(key)}" for key in keys]
    return [line if len(line) <= width else f"{line[: width - 1]}…" for line in lines]


def _widths(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the columns' widths; names are cut where there is no room."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    while sum(widths) + len(widths) - 1 > width:
        longest = max(FLEXIBLE, key=lambda column: widths[column])
        if widths[longest] <= 4:
            break
        widths[longest] -= 1
    return widths


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    shown = []
    for place, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        cut = cell if len(cell) <= width else f"{cell[: width - 1]}…"
        shown.append(cut.ljust(width) if place in (1, *FLEXIBLE) else cut.rjust(width))
    return " ".join(shown).rstrip()


def markdown(found: Comparison) -> str:
    """Return a page: a table for every op, its mean, and the rows of one file."""
    lines = ["# Two runs of `daqakd bench`", ""]
    lines += [f"- A: {found.a.path.name}, {found.a.machine}"]
    lines += [f"- B: {found.b.path.name}, {found.b.machine}"]
    lines += [f"- A / B: how many times as fast B is; {WITHIN}: within the spread of the rounds"]
    lines += [f"- Careful: {text}." for text in found.warnings()]
    for op, pairs in found.by_op().items():
        lines += ["", f"## {op}: geometric mean {mean_ratio(pairs):.2f} of {len(pairs)}", ""]
        lines += [f"| {' | '.join(HEADS)} |", f"|{'---|' * len(HEADS)}"]
        lines += [f"| {' | '.join(_cells(pair))} |" for pair in pairs]
    for file, keys in (("A", found.only_a), ("B", found.only_b)):
        if keys:
            lines += ["", f"## Only in {file}", "", *(f"- {named(key)}" for key in keys)]
    return "\n".join([*lines, ""])


def csv_text(found: Comparison) -> str:
    """Return a line for every row; a file that does not have it has no seconds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = ("op", "elements", "dtype", "form", "provider", "a_seconds", "b_seconds", "ratio")
    writer.writerow(heads)
    writer.writerows([*pair.key, pair.a, pair.b, pair.ratio] for pair in found.pairs)
    a, b = found.a.timed, found.b.timed
    writer.writerows([*key, a[key]["seconds"], "", ""] for key in found.only_a)
    writer.writerows([*key, "", b[key]["seconds"], ""] for key in found.only_b)
    return text.getvalue()


WRITERS: dict[str, Any] = {".md": markdown, ".csv": csv_text}


def check_out(out: Path) -> None:
    """Raise InputError for a file of another kind than those that are written."""
    if out.suffix not in WRITERS:
        raise InputError(f"out: expected a file that ends in .md or .csv, got {out.name!r}")


def write(found: Comparison, out: Path) -> None:
    """Write a comparison as its file's ending says."""
    write_text(out, WRITERS[out.suffix](found))
