"""Percentile intervals over resampled arms and seeds, the same ones every time."""

from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 10_000
SEED = 0
EDGES = (2.5, 97.5)  # percentiles
Values = np.ndarray[Any, Any]


def rho_interval(
    measured: Sequence[float], accuracies: Sequence[Sequence[float]]
) -> tuple[float, float]:
    """Return the 95 % interval of Spearman's rho of a measure and mean accuracies.

    Arms are drawn with replacement, and so are the seeds of each.

    Args:
        measured: one value per arm.
        accuracies: of the seeds of every arm.
    """
    draw = np.random.default_rng(SEED)
    means = np.stack([_means(one, draw) for one in accuracies], 1)  # [resamples, arms]
    arms = draw.integers(len(accuracies), size=means.shape)
    first = _ranks(np.asarray(measured, dtype=float)[arms])
    other = _ranks(np.take_along_axis(means, arms, 1))
    norm = np.sqrt((first**2).sum(1) * (other**2).sum(1))
    defined = norm > 0
    return _edges((first * other).sum(1)[defined] / norm[defined])


def difference_interval(first: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two means over resampled seeds."""
    draw = np.random.default_rng(SEED)
    return _edges(_means(first, draw) - _means(other, draw))


def _means(values: Sequence[float], draw: np.random.Generator) -> Values:
    """Return the means of resamples, ``[resamples]``."""
    picked = draw.integers(len(values), size=(RESAMPLES, len(values)))
    means: Values = np.asarray(values, dtype=float)[picked].mean(1)
    return means


def _ranks(values: Values) -> Values:
    """Return ranks less their mean along the last axis; equal values share the mean of theirs."""
    below = (values[:, None, :] < values[:, :, None]).sum(2)
    equal = (values[:, None, :] == values[:, :, None]).sum(2)
    ranks = below + equal / 2
    centred: Values = ranks - ranks.mean(1, keepdims=True)
    return centred


def _edges(values: Values) -> tuple[float, float]:
    low, high = np.percentile(values, EDGES)
    return float(low), float(high)
