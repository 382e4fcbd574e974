"""The figures of a sweep's page, as PNG bytes."""

import math
from collections.abc import Sequence

from .._statistics import mean
from ..report.drawing import figure, legend, png
from .summary import Cell, Summary
from .table import Finished

ACROSS = 3


def _heldout(runs: Sequence[Finished]) -> list[tuple[int, float]]:
    """Return epochs and the mean held-out accuracy in percent of the runs that reached them."""
    found: dict[int, list[float]] = {}
    for run in runs:
        for row in run.metrics:
            if row["heldout_accuracy"]:
                value = 100 * float(row["heldout_accuracy"])
                found.setdefault(int(row["epoch"]), []).append(value)
    return [(epoch, mean(values)) for epoch, values in sorted(found.items())]


def learning_curves(summary: Summary) -> bytes | None:
    """Return held-out accuracy over epochs, the mean over seeds, a panel per column."""
    panels = [(name, cells) for name, cells in summary.columns.items() if _measured(cells)]
    if not panels:
        return None
    across = min(ACROSS, len(panels))
    down = math.ceil(len(panels) / across)
    drawn = figure(max(6, 3.8 * across), 3.4 * down)
    grid = drawn.subplots(down, across, squeeze=False, sharey=True).flatten()
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes, (name, cells) in zip(grid, panels, strict=False):
        for strategy, cell in cells.items():
            if points := _heldout(cell.runs):
                axes.plot(*zip(*points, strict=True), marker=".", label=strategy)
        axes.set_title(name, fontsize=9, parse_math=False)
        axes.set(xlabel="epoch", ylabel="held-out accuracy (%)")
        axes.grid(alpha=0.3)
        legend(axes, fontsize=7)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return png(drawn)


def _measured(cells: dict[str, Cell]) -> bool:
    return any(_heldout(cell.runs) for cell in cells.values())
