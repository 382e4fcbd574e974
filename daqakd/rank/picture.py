"""The picture of a ranking."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .ranking import Ranking


def draw(ranking: "Ranking") -> bytes:
    """Return a PNG: scores with 95 % intervals on the left, CMI against PAC on the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = ranking.records()
    near = {ranking.best, *ranking.tied}
    colours = ["tab:orange" if r["name"] in near else "tab:blue" for r in rows]
    figure = Figure(figsize=(11, 1.6 + 0.36 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for place, (row, colour) in enumerate(zip(rows, colours, strict=True)):
        low, high = row["score_ci95"]
        left.plot([low, high], [place, place], color=colour, linewidth=2)
        left.plot(row["score"], place, "o", color=colour)
    left.set_yticks(range(len(rows)), [r["name"] for r in rows])
    left.invert_yaxis()
    left.set_xlabel("score = PAC - CMI (nats, lower is better), 95 % interval")
    left.grid(axis="x", alpha=0.3)
    for row, colour in zip(rows, colours, strict=True):
        right.plot(row["pac"], row["cmi"], "o", color=colour)
        right.annotate(
            row["name"], (row["pac"], row["cmi"]), xytext=(4, 3), textcoords="offset points", size=8
        )
    right.set_xlabel("PAC (nats)")
    right.set_ylabel("CMI (nats)")
    right.margins(x=0.25, y=0.1)
    right.grid(alpha=0.3)
    figure.suptitle(f"{ranking.images} images, best: {ranking.best} (orange: tied with the best)")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()
