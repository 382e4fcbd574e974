"""Turn a GPU run's rows into a page: ``python -m benchmarks.gpu_report gpu.json > page.md``."""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .gpu_aims import AIMS, Report, Row

BENCH_HEADS = {  # of a row that has a provider, in this order, where any row has a value
    "elements": "elements",
    "dtype": "dtype",
    "form": "form",
    "provider": "provider",
    "device_seconds": "us on device",
    "device_of_floor": "of floor",
    "launches": "launches",
    "timed_by": "timed by",
    "seconds": "us wall",
    "of_floor": "of floor, wall",
    "images_per_second": "images/s",
    "note": "note",
}
SMALL_PAGE = ("share", "cmi", "ranking", "cifar10", "ncu")


def rows_of(folder: Path) -> list[Row]:
    """Return the rows that a stage has written so far."""
    files = sorted(folder.glob("*.json"))
    return [row for file in files for row in json.loads(file.read_text())["rows"]]


def cell(value: Any) -> str:
    """Return a cell."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return "-" if value is None else str(value)


def markdown(heads: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    """Return a table."""
    heads = list(heads)
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return lines + [f"| {' | '.join(map(cell, row))} |" for row in rows]


def bench_table(rows: Sequence[Row]) -> list[str]:
    """Return the rows of ``daqakd bench``, device time first, in microseconds."""
    heads = {k: v for k, v in BENCH_HEADS.items() if any(r.get(k) not in (None, "") for r in rows)}

    def value(row: Row, key: str) -> Any:
        found = row.get(key)
        return found * 1e6 if found is not None and key.endswith("seconds") else found

    return markdown(heads.values(), ([value(row, key) for key in heads] for row in rows))


def table(rows: Sequence[Row]) -> list[str]:
    """Return rows as a table."""
    if "provider" in rows[0] and "seconds" in rows[0]:
        return bench_table(rows)
    known = {key: None for row in rows for key in row}
    heads = [key for key in known if any(row.get(key) not in (None, "") for row in rows)]
    return markdown(heads, ([row.get(head) for head in heads] for row in rows))


def stage_table(report: Report) -> list[str]:
    """Return what every stage did."""
    stages = report["stages"].items()
    rows = ((n, s["code"], f"{s['seconds']:.0f}", s["gpu"], s["says"][:120]) for n, s in stages)
    return markdown(("stage", "exit", "seconds", "GPU after it", "last line"), rows)


def aims_table(report: Report) -> list[str]:
    """Return which aims were met, missed, not measured."""
    heads = ("aim", "", "found")
    return markdown(heads, ((aim.text, *aim.outcome(report)) for aim in AIMS))


def page(report: Report, names: Sequence[str] | None = None) -> str:
    """Return the report as Markdown, with the rows of all stages or some."""
    lines = [f"# GPU run, {report['date']}", "", f"Device: {report['device']}"]
    if report.get("dry"):
        lines += ["", "A dry run on a CPU: every stage was walked through, no number is a result."]
    speed = report.get("copy_bytes_per_second")
    if speed:
        lines += ["", f"Floor: bytes at {speed / 1e9:,.0f} GB/s, read and written, of a copy here."]
    lines += ["", "## Aims", "", *aims_table(report), "", "## Stages", "", *stage_table(report)]
    for name, rows in report["rows"].items():
        if rows and (names is None or name in names):
            lines += ["", f"## {name}", "", *table(rows)]
    return "\n".join([*lines, ""])


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, help="gpu.json of a run")
    print(page(json.loads(parser.parse_args().report.read_text())))


if __name__ == "__main__":
    main()
