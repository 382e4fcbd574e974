"""The whole book of numbers in one folder: ``python -m benchmarks.book --out runs/book``.

Every op with every provider, then a training step, a ranking and a whole run beside a plain loop
and the published procedure: ``book.json`` and ``.csv``, ``book.md``, ``bars.png``,
``roofline.png``. ``--quick`` takes small inputs and one turn: minutes on 2 cores, no results. The
rows that are done are kept when it is interrupted.
"""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from daqakd._files import write_text
from daqakd.bench.book import Book, Row, read_book, write_book
from daqakd.bench.plot import plot
from daqakd.bench.registry import BENCHMARKS, NUM_IMAGES, SIZES
from daqakd.bench.run import bench

from . import bench_end_to_end
from .gpu_report import markdown

QUICK_OPS = ("lsq", "dorefa_weight", "kd_loss", "resnet20", "augment")
QUICK_SIZE, QUICK_IMAGES, TURNS = 4096, 8, 9
NAME = "book.json"
Keep = Callable[[dict[str, Any]], None]


def ops(options: argparse.Namespace, keep: Keep) -> dict[str, Any]:
    """Measure the ops as ``daqakd bench`` does."""
    if options.quick:
        names = options.op or QUICK_OPS
        return bench(names, (QUICK_SIZE,), ("float32",), options.device, 1, QUICK_IMAGES, keep=keep)
    names, dtypes = options.op or tuple(BENCHMARKS), ("float32", "bfloat16")
    return bench(names, SIZES, dtypes, options.device, TURNS, NUM_IMAGES, keep=keep)


def end_to_end(options: argparse.Namespace, record: dict[str, Any], keep: Keep) -> None:
    """Measure whole jobs, and add their rows."""
    of_ops = list(record["rows"])
    images = bench_end_to_end.QUICK_IMAGES if options.quick else bench_end_to_end.IMAGES

    def add(rows: list[bench_end_to_end.Row]) -> None:
        record["rows"] = of_ops + rows
        keep(record)

    bench_end_to_end.measure(options.device, options.quick, images, options.data, add)


def best_of(rows: Iterable[Row]) -> float | None:
    """Return the least time of some rows."""
    return min((row["seconds"] for row in rows if row["seconds"]), default=None)


def _line(row: Row, best: float | None) -> list[Any]:
    told = row["note"] or row["convention"]
    if not row["seconds"]:
        return [row["elements"], row["dtype"], row["form"], row["provider"], *[None] * 4, told]
    start = [row["elements"], row["dtype"], row["form"], row["provider"]]
    times = [1e6 * row["seconds"], row["seconds"] / best if best else None]
    shares = [None if row.get(name) is None else f"{row[name]:.0%}" for name in ("spread",)]
    floor = None if row["of_floor"] is None else f"{row['of_floor']:.0%}"
    return [*start, *times, *shares, floor, told]


def page(book: Book, pictures: Iterable[str], quick: bool) -> str:
    """Return the book as Markdown: a table for every op, losing rows included."""
    record = book.record
    lines = ["# Benchmarks", "", f"- Machine: {book.machine}."]
    lines += [f"- Made by `{record['command']}`; medians of {record['turns']} turns."]
    lines += ["- Quick: small inputs and one turn, so no number is a result."] if quick else []
    speed = record["copy_bytes_per_second"]
    lines += [f"- Floor: the bytes of an op at {speed / 1e9:.1f} GB/s, of a copy here."]
    lines += [
        "- Times are of forward and backward where an op has both; `x best`: by the case's best."
    ]
    skipped = record.get("skipped") or {}
    lines += [f"- Skipped: {name} ({reason})." for name, reason in skipped.items()]
    lines += ["", *(f"![{name}]({name})" for name in pictures)]
    heads = ["elements", "dtype", "form", "provider", "us", "x best", "spread", "of floor", "note"]
    for op in dict.fromkeys(row["op"] for row in book.rows):
        rows = [row for row in book.rows if row["op"] == op]
        lines += ["", f"## {op}", "", *markdown(heads, (_line(r, _best(r, rows)) for r in rows))]
    return "\n".join([*lines, ""])


def _best(row: Row, rows: Iterable[Row]) -> float | None:
    case = [row[name] for name in ("elements", "dtype", "form")]
    return best_of(r for r in rows if [r[name] for name in ("elements", "dtype", "form")] == case)


def finish(out: Path, quick: bool) -> None:
    """Draw and write the page of the rows that are there."""
    book = read_book(out / NAME)
    pictures = [path.name for path in plot(book, out)]
    write_text(out / "book.md", page(book, pictures, quick))


def main() -> None:
    """Measure all into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/book"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--op", nargs="+", choices=[*BENCHMARKS], help="default: all, or some")
    parser.add_argument("--data", help="a data set for whole jobs; default: made-up images")
    options = parser.parse_args()

    def keep(record: dict[str, Any]) -> None:
        write_book(options.out / NAME, record | {"command": "python -m benchmarks.book"})

    record = ops(options, keep)
    end_to_end(options, record, keep)
    finish(options.out, options.quick)
    print(f"wrote {options.out / 'book.md'}")


if __name__ == "__main__":
    main()
