"""README's table of ratios, made from ``results/``: ``python -m benchmarks.readme_table``.

A line is a range over all rows of its pages that are meant, those that lose included. Rows come
from ``results/NAME.json``, as ``daqakd bench`` writes it, where there is one; else from the tables
of ``results/NAME.md``. ``--check`` writes nothing and fails where README has something else.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from daqakd.bench.book import read_book

ROOT = Path(__file__).parents[1]
README, RESULTS = ROOT / "README.md", ROOT / "benchmarks" / "results"
START, END = "<!-- numbers: python -m benchmarks.readme_table -->", "<!-- numbers end -->"
HEADS = ("", "against `torch.compile`", "against eager or the plain form")
Row = Mapping[str, str]  # cells by head, and the section's heading under ""
Wanted = Callable[[Row], bool]
CASE = ("op", "elements", "dtype", "form")


def rows_of_page(path: Path) -> Iterator[Row]:
    """Yield the rows of a page's tables."""
    section, heads = "", list[str]()
    for line in path.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("#"):
            section = line.lstrip("# ")
        if not line.startswith("|"):
            heads = []
        elif not heads:  # runs of the same have the same head
            heads = [cell * (cells[:place].count(cell) + 1) for place, cell in enumerate(cells)]
        elif not set(line) <= set("|-: "):
            yield {"": section, **dict(zip(heads, cells, strict=True))}


def rows_of_bench(path: Path) -> Iterator[Row]:
    """Yield what a page would have of the cases of a ``bench.json``, as cells."""
    cases: dict[tuple[str, ...], dict[str, float]] = {}
    for row in read_book(path).timed.values():
        case = tuple(str(row[name]) for name in CASE)
        cases.setdefault(case, {})[row["provider"]] = row["seconds"]
    for case, seconds in cases.items():
        cells = dict(zip(CASE, case, strict=True)) | {"": f"{int(case[1]):,} elements"}
        for name in ("compile", "eager", "torchvision"):
            if {name, "native"} <= seconds.keys():
                cells[f"against {name}"] = f"{seconds[name] / seconds['native']:.4g} x"
        yield cells


def rows_of(name: str, results: Path) -> Iterator[Row]:
    """Yield the rows of a page, from its JSON where there is one."""
    path = results / f"{name}.json"
    return rows_of_bench(path) if path.exists() else rows_of_page(results / f"{name}.md")


def numbers(cell: str, pattern: str) -> float | None:
    """Return the number that a cell has, None for one that has none."""
    found = re.search(pattern, cell)
    return float(found[1]) if found else None


def span(values: list[float]) -> str:
    """Return the least and the largest of ratios."""
    if not values:
        return ""
    low, high = (f"{v:.0f}" if v >= 10 else f"{v:.1f}" for v in (min(values), max(values)))
    low, high = (f"{v:.2f}" if v < 1 else s for v, s in ((min(values), low), (max(values), high)))
    return f"{low} x" if low == high else f"{low} to {high} x"


def in_section(start: str) -> Wanted:
    """Return what is true of rows below headings that begin so."""
    return lambda row: row[""].startswith(start)


def of_ops(*ops: str) -> Wanted:
    """Return what is true of 16M rows of some ops."""
    large = in_section("16,777,216")
    return lambda row: large(row) and row["op"].split(",")[0] in ops


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Args:
        text: what is measured; ``[...]`` becomes a link to the page.
        page: of ``results/``.
        wanted: which rows of the page count.
        compiled: heads of the columns with ratios to torch.compile.
        plain: the same to eager or the plain form; empty for all columns.
        pattern: where a cell has its number.
    """

    text: str
    page: str
    wanted: Wanted = lambda row: True
    compiled: tuple[str, ...] = ("against compile", "native against compile")
    plain: tuple[str, ...] = ("against eager",)
    pattern: str = r"^([\d.]+) x$"

    def cells(self, results: Path) -> list[str]:
        """Return the cells: text, ratios to torch.compile, ratios to the plain form."""
        rows = [row for row in rows_of(self.page, results) if self.wanted(row)]
        ranges = [self._span(rows, heads) for heads in (self.compiled, self.plain)]
        if not any(ranges):
            raise SystemExit(f"results/{self.page}: no row for README's line {self.text!r}")
        link = f"(benchmarks/results/{self.page}.md)"
        return [self.text.replace("]", f"]{link}"), *ranges]

    def _span(self, rows: list[Row], heads: tuple[str, ...]) -> str:
        cells = [row[head] for row in rows for head in heads or row if head in row]
        return span([n for cell in cells if (n := numbers(cell, self.pattern)) is not None])


METHODS = ("LSQ", "PACT", "DoReFa", "EWGS")
RATE = "images/s (of `loop`, of `fp32`)"
LINES = (
    Line("[LSQ], 16M elements", "lsq-cpu", in_section("16,777,216")),
    Line(
        "[PACT, DoReFa], 16M elements",
        "quantizers-cpu",
        of_ops("pact", "dorefa_activation", "dorefa_weight"),
    ),
    Line("[EWGS], 16M elements", "quantizers-cpu", of_ops("ewgs")),
    Line("[ResNet-20's weights in one call]", "many-cpu", in_section("ResNet-20")),
    Line(
        "[`kd_loss`], 256 rows, 10 to 1000 classes",
        "kd-loss-cpu",
        plain=("native against eager", "native against the faster eager", "against eager"),
    ),
    Line(
        "[augmentation], 32 x 32 pixels, five policies, against torchvision per image",
        "augment-cpu",
        lambda row: row.get("side", "32") == "32",
        plain=("against torchvision",),
    ),
    Line(
        "[losses of feature distillation], against transcriptions",
        "losses-cpu",
        lambda row: "transcription / ours" in row,
        plain=("transcription / ours",),
        pattern=r"^([\d.]+)$",
    ),
    Line(
        "[whole W4A4 training], three networks, four quantizers, three runs, against a plain loop",
        "training-cpu",
        lambda row: row[""].startswith("In channels_last") and row.get(RATE) in METHODS,
        compiled=("-",),
        plain=(),
        pattern=r"\(([\d.]+),",
    ),
)


def table(results: Path = RESULTS) -> str:
    """Return the table as Markdown."""
    rows = [list(HEADS), ["---"] * len(HEADS), *(line.cells(results) for line in LINES)]
    lines = ["|" + "|".join(f" {cell} " for cell in row) + "|" for row in rows]
    return "\n".join([lines[0], "|---|---|---|", *lines[2:]])


def with_table(text: str, made: str) -> str:
    """Return README's text with the table between its marks."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise SystemExit(f"README.md: expected the lines {START} and {END}; put them back")
    return f"{before}{START}\n\n{made}\n\n{END}{after}"


def main() -> int:
    """Write the table into README, or say whether it is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    old = README.read_text()
    new = with_table(old, table())
    if old != new and options.check:
        print("README.md is stale: run python -m benchmarks.readme_table")
        return 1
    if old != new:
        README.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
