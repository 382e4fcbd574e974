"""Pictures of a file of rows: ``daqakd bench plot BENCH.json``.

Bars show how many times as fast each provider is as its op's first one; a point of the roofline is
what a provider moves per second of the bytes that its op has to move, at the least.
"""

import io
import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from .._errors import InputError
from .._files import write_bytes
from .book import Book, Row

BARS, ROOFLINE = "bars.png", "roofline.png"
COLUMNS = 2  # of panels
Speeds = dict[str, float]


def _figure(width: float, height: float) -> Any:
    """Return an empty figure of so many inches, without a window."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("plot needs matplotlib: pip install 'daqakd[report]'") from error
    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def _colours(names: Sequence[str]) -> dict[str, Any]:
    """Return a colour for each provider, the same in both pictures."""
    from matplotlib import colormaps

    sizes = {"tab10": 10, "Dark2": 8, "Set2": 8}
    palette = [colormaps[name](place) for name, size in sizes.items() for place in range(size)]
    return {name: palette[place % len(palette)] for place, name in enumerate(names)}


def _providers(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row["provider"] for row in rows))


def speeds(rows: Sequence[Row]) -> tuple[str, dict[int, Speeds]]:
    """Return an op's first provider, and by size how many times as fast the others are.

    A value is the geometric mean over the dtypes and forms in which both were timed.
    """
    first = rows[0]["provider"]
    logs: dict[int, dict[str, list[float]]] = {}
    for _, group in groupby(rows, lambda row: (row["elements"], row["dtype"], row["form"])):
        case = list(group)
        base = next((row["seconds"] for row in case if row["provider"] == first), None)
        for row in case if base else ():
            of_size = logs.setdefault(row["elements"], {})
            of_size.setdefault(row["provider"], []).append(math.log(base / row["seconds"]))
    means = {
        size: {name: math.exp(sum(found) / len(found)) for name, found in of_size.items()}
        for size, of_size in sorted(logs.items())
    }
    return first, means


def _bars(axes: Any, op: str, rows: Sequence[Row], colours: dict[str, Any]) -> None:
    """Draw an op's panel: a group of bars for every size."""
    first, of_sizes = speeds(rows)
    names = [name for name in _providers(rows) if any(name in of for of in of_sizes.values())]
    width = 0.84 / max(1, len(names))
    for place, name in enumerate(names):
        found = [(x, of[name]) for x, of in enumerate(of_sizes.values()) if name in of]
        at = [x + (place - (len(names) - 1) / 2) * width for x, _ in found]
        bars = axes.bar(at, [speed for _, speed in found], width, color=colours[name], label=name)
        shown = [f"{speed:.2g}" if speed < 10 else f"{speed:.0f}" for _, speed in found]
        axes.bar_label(bars, shown, size=6, padding=1)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_yscale("log")
    axes.margins(y=0.15)
    axes.set_xticks(range(len(of_sizes)), [f"{size:,}" for size in of_sizes])
    axes.set_title(op, size=10)
    axes.set_ylabel(f"times as fast as {first}", size=8)
    axes.tick_params(labelsize=8)


def draw_bars(book: Book) -> bytes:
    """Return a PNG with a panel for every op.

    Raises:
        InputError: no row was timed, or matplotlib is missing.
    """
    rows = _timed(book)
    ops = {op: [row for row in rows if row["op"] == op] for op in dict.fromkeys(_ops(rows))}
    columns = min(COLUMNS, len(ops))
    lines = math.ceil(len(ops) / columns)
    figure = _figure(6.5 * columns, 0.6 + 3.0 * lines)
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    colours = _colours(_providers(rows))
    for axes, (op, of_op) in zip(panels, ops.items(), strict=False):
        _bars(axes, op, of_op, colours)
    for axes in panels[len(ops) :]:
        axes.remove()
    figure.supxlabel("elements", size=9)
    _legend(figure, {name: colours[name] for name in _providers(rows)}, {})
    figure.suptitle(f"{book.machine}\nmeans over dtypes and forms; more is better", size=9)
    return _png(figure)


def _ops(rows: Iterable[Row]) -> Iterable[str]:
    return (row["op"] for row in rows)


def _timed(book: Book) -> list[Row]:
    rows = list(book.timed.values())
    if not rows:
        raise InputError(f"{book.path}: none of its rows was timed; its notes say why")
    return rows


def share_of_floor(row: Row) -> float | None:
    """Return how much of the copy's speed a row has: on a GPU by its own time, else by wall."""
    found: float | None = row.get("device_of_floor") or row.get("of_floor")
    return found


def draw_roofline(book: Book) -> bytes | None:
    """Return a PNG: bytes per second against elements; None where no row is bound by memory.

    Raises:
        InputError: no row was timed, or matplotlib is missing.
    """
    speed = book.record.get("copy_bytes_per_second")
    rows = [row for row in _timed(book) if share_of_floor(row)]
    if not rows or not speed:
        return None
    figure = _figure(9.0, 5.5)
    axes, colours = figure.subplots(), _colours(_providers(_timed(book)))
    marks = dict(zip(dict.fromkeys(_ops(rows)), "os^vDPX*<>phd", strict=False))
    for place, (name, colour) in enumerate(colours.items()):
        aside = 1.06 ** (place - len(colours) // 2)  # else providers hide each other
        for op, mark in marks.items():
            found = [r for r in rows if (r["provider"], r["op"]) == (name, op)]
            heights = [(share_of_floor(r) or 0.0) * speed / 1e9 for r in found]
            at = [r["elements"] * aside for r in found]
            axes.scatter(at, heights, 22, color=colour, marker=mark, alpha=0.7, linewidths=0)
    axes.axhline(speed / 1e9, color="black", linewidth=1)
    axes.annotate(
        f"copy of memory, {speed / 1e9:,.1f} GB/s",
        (0.01, speed / 1e9),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        size=8,
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.set_xlabel("elements")
    axes.set_ylabel("GB/s of what has to be read and written")
    axes.set_title(f"{book.machine}; small inputs stay in the cache, so some are above", size=9)
    _legend(figure, {name: colours[name] for name in _providers(rows)}, marks)
    return _png(figure)


def _legend(figure: Any, colours: dict[str, Any], marks: dict[str, str]) -> None:
    """Say what colours and marks mean, beside the panels."""
    from matplotlib.lines import Line2D

    meant = [(name, colour, "o") for name, colour in colours.items()]
    meant += [(op, "grey", mark) for op, mark in marks.items()]
    handles = [
        Line2D([], [], color=colour, marker=mark, label=name, linestyle="")
        for name, colour, mark in meant
    ]
    figure.legend(handles=handles, loc="outside right upper", fontsize=7)


def _png(figure: Any) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()


def plot(book: Book, out: Path) -> list[Path]:
    """Write the pictures of a file into a folder; return their paths.

    Raises:
        InputError: no row was timed, or matplotlib is missing.
        OSError: a picture cannot be written.
    """
    pictures = {BARS: draw_bars(book), ROOFLINE: draw_roofline(book)}
    written = {out / name: content for name, content in pictures.items() if content is not None}
    for path, content in written.items():
        write_bytes(path, content)
    return list(written)
