"""The figures of the report, as PNG bytes."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from .._statistics import deviation, mean
from ..quant.grids import quantized_layers
from ..quant.layers import QuantLayer
from .drawing import figure as _figure
from .drawing import png as _png

COLUMNS = 5
PANEL = (5.4, 3.5)  # inches
COLOURS = {"teacher": "tab:gray", "student": "tab:blue"}


def curves(metrics: dict[str, list[dict[str, str]]]) -> dict[str, bytes]:
    """Return loss, and training and held-out accuracy, over epochs.

    ``metrics`` has the rows of the metrics files of the ``teacher`` and the ``student``.
    """
    roles = [(r, c, metrics[r]) for r, c in COLOURS.items() if metrics[r]]
    (left, first), (right, second) = _panel(), _panel()
    for role, colour, rows in roles:
        losses = [float(row["loss"]) for row in rows]
        first.plot(_epochs(rows), losses, color=colour, label=role, marker=".")
        _plot_accuracy(second, role, colour, rows)
    first.set(ylabel="loss", yscale="log")
    second.set(ylabel="accuracy (%)")
    for axes in (first, second):
        axes.legend(fontsize=9)
    return {"loss over epochs": _png(left), "accuracy over epochs": _png(right)}


def _panel() -> tuple[Any, Any]:
    """Return a figure over epochs that a telephone shows too, and its axes."""
    figure = _figure(*PANEL)
    axes = figure.subplots()
    axes.set(xlabel="epoch")
    axes.grid(alpha=0.3)
    axes.xaxis.get_major_locator().set_params(integer=True)
    return figure, axes


def _epochs(rows: Sequence[dict[str, Any]]) -> list[int]:
    return [int(row["epoch"]) for row in rows]


def _plot_accuracy(axes: Any, role: str, colour: str, rows: list[dict[str, str]]) -> None:
    percents = [100 * float(row["accuracy"]) for row in rows]
    label = f"{role}, augmented training"
    axes.plot(_epochs(rows), percents, color=colour, label=label, linestyle=":")
    measured = [row for row in rows if row["heldout_accuracy"]]
    if measured:
        percents = [100 * float(row["heldout_accuracy"]) for row in measured]
        axes.plot(_epochs(measured), percents, color=colour, label=f"{role}, held out", marker=".")


def quantization(records: Sequence[dict[str, Any]]) -> dict[str, bytes]:
    """Return shares of oscillating weights and clipped activations, and steps, over epochs.

    ``records`` are those of ``metrics.jsonl`` that have quantizers.
    """
    (left, first), (right, second) = _panel(), _panel()
    for name in ("oscillating", "clipped", "frozen"):
        shares = [record.get(name) for record in records]
        if any(share is not None for share in shares):
            percents = [math.nan if share is None else 100 * share for share in shares]
            first.plot(_epochs(records), percents, label=name, marker=".")
    for name in records[-1]["quantizers"]:
        _plot_steps(second, name, records)
    first.set(ylabel="share (%)")
    first.legend(fontsize=9)
    second.set(ylabel="steps (blue: weights, orange: activations)", yscale="log")
    return {"oscillation and clipping": _png(left), "steps over epochs": _png(right)}


def _plot_steps(axes: Any, name: str, records: Sequence[dict[str, Any]]) -> None:
    steps = [record["quantizers"].get(name, {}).get("step") for record in records]
    colour = "tab:orange" if name.endswith("act_quantizer") else "tab:blue"
    values = [math.nan if step is None or step <= 0 else step for step in steps]
    axes.plot(_epochs(records), values, color=colour, linewidth=0.8, marker=".", markersize=2)


class Point(NamedTuple):
    """A strategy: its score, and the accuracies of its students from 0 to 1."""

    strategy: str
    score: float | None
    accuracies: Sequence[float]

    @property
    def mean(self) -> float:
        """Mean accuracy in percent."""
        return 100 * mean(self.accuracies)

    @property
    def deviation(self) -> float | None:
        """Standard deviation in points; None for one student."""
        found = deviation(self.accuracies)
        return None if found is None else 100 * found

    @property
    def text(self) -> str:
        """Mean and deviation, as tables show them."""
        spread = self.deviation
        return f"{self.mean:.2f}" + ("" if spread is None else f" ± {spread:.2f}")


def score_against_accuracy(points: Sequence[Point], title: str) -> bytes:
    """Return a scatter of scores and mean test accuracies, with one deviation up and down."""
    figure = _figure(6, 4)
    axes = figure.subplots()
    known = [(one.score, one) for one in points if one.score is not None]
    middle = sum(score for score, _ in known) / len(known)
    for score, one in known:
        axes.errorbar(score, one.mean, one.deviation or 0, fmt="o", color="tab:blue", capsize=2)
        _name(axes, one.strategy, (score, one.mean), leftwards=score > middle)
    axes.set(xlabel="score (nats, lower is better)", ylabel="student's test accuracy (%)")
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.grid(alpha=0.3)
    axes.margins(0.15)
    return _png(figure)


def _name(axes: Any, text: str, point: tuple[float, float], leftwards: bool) -> None:
    axes.annotate(
        text,
        point,
        xytext=(-6 if leftwards else 6, 3),
        textcoords="offset points",
        ha="right" if leftwards else "left",
        size=8,
        parse_math=False,
    )


def _plot_weights(axes: Any, name: str, layer: QuantLayer) -> None:
    """Draw the distribution of a layer's weights before and after quantization."""
    before, after = layer.weight.flatten(), layer.quantized_weight().flatten()
    low, high = min(before.min(), after.min()).item(), max(before.max(), after.max()).item()
    axes.hist(before.numpy(), bins=60, range=(low, high), density=True, color="tab:gray", alpha=0.6)
    values, counts = after.unique(return_counts=True)
    fractions = (counts / len(after)).numpy()
    twin = axes.twinx()
    if len(values) <= 16:
        twin.vlines(values.numpy(), 0, fractions, color="tab:orange", linewidth=2)
    else:
        twin.plot(values.numpy(), fractions, color="tab:orange", linewidth=1)
    twin.set_ylim(0)
    for side in (axes, twin):
        side.set_yticks([])
    axes.tick_params(labelsize=6)
    title = f"{name}, {layer.weight_quantizer.bits} bit"  # type: ignore[union-attr]
    axes.set_title(title, fontsize=7, parse_math=False)


@torch.no_grad()
def weights(student: nn.Module) -> bytes:
    """Return one small histogram per layer: weights before, and levels after quantization."""
    layers = quantized_layers(student)
    rows = math.ceil(len(layers) / COLUMNS)
    figure = _figure(11, 1.7 * rows + 0.3)
    grid = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    for axes in grid[len(layers) :]:
        axes.set_visible(False)
    for axes, (name, layer) in zip(grid, layers, strict=False):
        _plot_weights(axes, name, layer)
    return _png(figure)
