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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = ranking["strategies"]
    near = {ranking["best"], *ranking["tied"]}
    colours = ["tab:orange" if r["name"] in near else "tab:blue" for r in rows]
    figure = Figure(figsize=(11, 1.6 + 0.36 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for place, (row, colour) in enumerate(zip(rows, colours, strict=True)):
        value, (low, high) = shown(row)
        left.plot([low, high], [place, place], color=colour, linewidth=2)
        left.plot(value, place, "o", color=colour)
    left.set_yticks(range(len(rows)), [_short(r["name"]) for r in rows], parse_math=False)
    left.invert_yaxis()
    decides = ranking.get("criterion", {}).get("by", "score").rpartition(":")[2]
    meant = "score = PAC - CMI (nats, " if decides == "score" else f"{decides} ("
    left.set_xlabel(f"{meant}lower is better), 95 % interval")
    left.grid(axis="x", alpha=0.3)
    middle = (min(r["pac"] for r in rows) + max(r["pac"] for r in rows)) / 2
    for row, colour in zip(rows, colours, strict=True):
        point, leftwards = (row["pac"], row["cmi"]), row["pac"] > middle
        right.plot(*point, "o", color=colour)
        right.annotate(
            _short(row["name"]),
            point,
            xytext=(-6 if leftwards else 6, 3),
            textcoords="offset points",
            ha="right" if leftwards else "left",
            size=8,
            parse_math=False,
        )
    right.set_xlabel("PAC (nats)")
    right.set_ylabel("CMI (nats)")
    right.margins(x=0.25, y=0.1)
    right.grid(alpha=0.3)
    tied = f", tied with it: {', '.join(map(_short, ranking['tied']))}" if ranking["tied"] else ""
    title = f"{ranking['images']} images; best: {_short(ranking['best'])}{tied}"
    figure.suptitle(title, parse_math=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()
