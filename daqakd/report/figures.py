"""The figures of the report, as PNG bytes."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..quant.grids import quantized_layers
from ..quant.layers import QuantLayer
from .drawing import figure as _figure
from .drawing import png as _png

COLUMNS = 5


def _plot_role(left: Any, right: Any, role: str, rows: list[dict[str, str]], colour: str) -> None:
    """Draw the loss into ``left``, the accuracies into ``right``."""
    epochs = [int(row["epoch"]) for row in rows]
    left.plot(epochs, [float(r["loss"]) for r in rows], color=colour, label=role, marker=".")
    percents = [100 * float(row["accuracy"]) for row in rows]
    right.plot(epochs, percents, color=colour, label=f"{role}, augmented training", linestyle=":")
    measured = [row for row in rows if row["heldout_accuracy"]]
    if measured:
        epochs = [int(row["epoch"]) for row in measured]
        percents = [100 * float(row["heldout_accuracy"]) for row in measured]
        right.plot(epochs, percents, color=colour, label=f"{role}, held out", marker=".")


def curves(metrics: dict[str, list[dict[str, str]]]) -> bytes:
    """Return loss on the left, training and held-out accuracy on the right, over epochs.

    ``metrics`` has the rows of the metrics files of the ``teacher`` and the ``student``.
    """
    figure = _figure(11, 3.6)
    left, right = figure.subplots(1, 2)
    for role, colour in (("teacher", "tab:gray"), ("student", "tab:blue")):
        if metrics[role]:
            _plot_role(left, right, role, metrics[role], colour)
    left.set(xlabel="epoch", ylabel="loss", yscale="log")
    right.set(xlabel="epoch", ylabel="accuracy (%)")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return _png(figure)


def quantization(records: Sequence[dict[str, Any]]) -> bytes:
    """Return shares of oscillating weights and clipped activations, and steps, over epochs.

    ``records`` are those of ``metrics.jsonl`` that have quantizers.
    """
    figure = _figure(11, 3.6)
    left, right = figure.subplots(1, 2)
    epochs = [record["epoch"] for record in records]
    for name in ("oscillating", "clipped", "frozen"):
        shares = [record.get(name) for record in records]
        if any(share is not None for share in shares):
            percents = [math.nan if share is None else 100 * share for share in shares]
            left.plot(epochs, percents, label=name, marker=".")
    for name in records[-1]["quantizers"]:
        steps = [record["quantizers"].get(name, {}).get("step") for record in records]
        colour = "tab:orange" if name.endswith("act_quantizer") else "tab:blue"
        values = [math.nan if step is None or step <= 0 else step for step in steps]
        right.plot(epochs, values, color=colour, linewidth=0.8, marker=".", markersize=2)
    left.set(xlabel="epoch", ylabel="share (%)")
    left.legend(fontsize=8)
    right.set(xlabel="epoch", ylabel="steps (blue: weights, orange: activations)", yscale="log")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return _png(figure)


def score_against_accuracy(points: Sequence[tuple[str, float, float]]) -> bytes:
    """Return a scatter of (name, score, test accuracy in percent)."""
    figure = _figure(6, 4)
    axes = figure.subplots()
    middle = sum(score for _, score, _ in points) / len(points)
    for name, score, accuracy in points:
        leftwards = score > middle
        axes.plot(score, accuracy, "o", color="tab:blue")
        axes.annotate(
            name,
            (score, accuracy),
            xytext=(-6 if leftwards else 6, 3),
            textcoords="offset points",
            ha="right" if leftwards else "left",
            size=8,
            parse_math=False,
        )
    axes.set(xlabel="score (nats, lower is better)", ylabel="student's test accuracy (%)")
    axes.grid(alpha=0.3)
    axes.margins(0.15)
    return _png(figure)


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
