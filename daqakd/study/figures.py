"""The figures of a study, as PNG bytes."""

from collections.abc import Sequence
from typing import Any

from .._statistics import mean
from ..report.drawing import figure, legend, png
from .evidence import Arm, Evidence
from .outcomes import Outcome


def scores(evidence: Evidence, title: str) -> bytes:
    """Return score against accuracy: the mean of every arm, and its runs as a line."""
    drawn = figure(7, 4.6)
    axes = drawn.subplots()
    for number, arm in enumerate(evidence.arms, 1):
        _draw_arm(axes, number, arm)
    axes.set(xlabel="score (nats, lower is better)", ylabel="student's test accuracy (%)")
    _finish(axes, title, markerscale=0, handlelength=0)
    return png(drawn)


def _finish(axes: Any, title: str, **options: Any) -> None:
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.grid(alpha=0.3)
    place = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "frameon": False}
    legend(axes, fontsize=7, **place, **options)


def _draw_arm(axes: Any, number: int, arm: Arm) -> None:
    """Draw an arm under its number, which the legend explains: names would hide each other."""
    score, values = arm.measures["score"], [100 * one for one in arm.accuracies.values()]
    if score is None:
        return
    axes.plot([score, score], [min(values), max(values)], color="tab:gray", linewidth=1)
    axes.plot(score, mean(values), "o", color="tab:blue", label=f"{number} {arm.name}")
    near = {"xytext": (4, 3), "textcoords": "offset points", "size": 8}
    axes.annotate(str(number), (score, mean(values)), **near)


def learning_curves(outcomes: Sequence[Outcome], title: str) -> bytes:
    """Return accuracy on augmented training images over epochs, the mean over seeds of each arm."""
    drawn = figure(7, 4.6)
    axes = drawn.subplots()
    styles = ("-", "--", ":")
    names = list(dict.fromkeys(one.strategy for one in outcomes))
    for place, name in enumerate(names):
        runs = [one.training for one in outcomes if one.strategy == name]
        means = [100 * mean(values) for values in zip(*runs, strict=False)]
        style = styles[place // 10 % len(styles)]
        axes.plot(range(1, len(means) + 1), means, style, linewidth=1, label=name)
    axes.set(xlabel="epoch", ylabel="accuracy on augmented training images (%)")
    _finish(axes, title)
    axes.xaxis.get_major_locator().set_params(integer=True)
    return png(drawn)
