"""The picture of a ranking."""

import io
from typing import Any

from .result import shown

LONGEST = 40  # characters of a name


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}..."


def draw(ranking: dict[str, Any]) -> bytes:
    """Return a PNG: scores with 95 % intervals on the left, CMI against PAC on the right.

    ``ranking`` is the content of ``ranking.json``.
    """
    figure = _figure(11, _height(ranking))
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_scores(left, ranking)
    _draw_plane(right, ranking)
    figure.suptitle(_title(ranking), parse_math=False)
    return _png(figure)


def draw_scores(ranking: dict[str, Any]) -> bytes:
    """Return the left part alone."""
    figure = _figure(5.6, _height(ranking))
    axes = figure.subplots()
    _draw_scores(axes, ranking)
    axes.set_title(
        f"{ranking['images']} images; best: {_short(ranking['best'])}", size=10, parse_math=False
    )
    return _png(figure)


def draw_plane(ranking: dict[str, Any]) -> bytes:
    """Return the right part alone."""
    figure = _figure(5.2, _height(ranking))
    _draw_plane(figure.subplots(), ranking)
    return _png(figure)


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _height(ranking: dict[str, Any]) -> float:
    return float(1.6 + 0.36 * len(ranking["strategies"]))


def _colours(ranking: dict[str, Any]) -> list[str]:
    near = {ranking["best"], *ranking["tied"]}
    return ["tab:orange" if r["name"] in near else "tab:blue" for r in ranking["strategies"]]


def _draw_scores(axes: Any, ranking: dict[str, Any]) -> None:
    rows = ranking["strategies"]
    for place, (row, colour) in enumerate(zip(rows, _colours(ranking), strict=True)):
        value, (low, high) = shown(row)
        axes.plot([low, high], [place, place], color=colour, linewidth=2)
        axes.plot(value, place, "o", color=colour)
    axes.set_yticks(range(len(rows)), [_short(r["name"]) for r in rows], parse_math=False)
    axes.invert_yaxis()
    decides = ranking.get("criterion", {}).get("by", "score").rpartition(":")[2]
    meant = "score = PAC - CMI (nats, " if decides == "score" else f"{decides} ("
    axes.set_xlabel(f"{meant}lower is better), 95 % interval")
    axes.grid(axis="x", alpha=0.3)


def _draw_plane(axes: Any, ranking: dict[str, Any]) -> None:
    rows = ranking["strategies"]
    middle = (min(r["pac"] for r in rows) + max(r["pac"] for r in rows)) / 2
    for row, colour in zip(rows, _colours(ranking), strict=True):
        point, leftwards = (row["pac"], row["cmi"]), row["pac"] > middle
        axes.plot(*point, "o", color=colour)
        axes.annotate(
            _short(row["name"]),
            point,
            xytext=(-6 if leftwards else 6, 3),
            textcoords="offset points",
            ha="right" if leftwards else "left",
            size=8,
            parse_math=False,
        )
    axes.set(xlabel="PAC (nats)", ylabel="CMI (nats)")
    axes.margins(x=0.25, y=0.1)
    axes.grid(alpha=0.3)


def _title(ranking: dict[str, Any]) -> str:
    tied = f", tied with it: {', '.join(map(_short, ranking['tied']))}" if ranking["tied"] else ""
    return f"{ranking['images']} images; best: {_short(ranking['best'])}{tied}"


def _png(figure: Any) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()
