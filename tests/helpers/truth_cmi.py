"""What CMI must be: in float64 by its definition, off the label, in 60 decimal digits."""

from decimal import Decimal, localcontext

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def centroids(p: Tensor, labels: Tensor) -> Tensor:
    """Return Q: the (label-weighted) mean prediction of each class, zero for an empty class."""
    weights = F.one_hot(labels, p.shape[1]) if labels.dim() == 1 else labels
    weights = weights.double()
    return (weights.T @ p) / weights.sum(0).clamp(min=1e-300)[:, None]


def cmi(p: Tensor, labels: Tensor) -> Tensor:
    """Return the mean KL of each prediction to the (mixture of) centroids of its label."""
    weights = F.one_hot(labels, p.shape[1]).double() if labels.dim() == 1 else labels
    reference = weights @ centroids(p, labels)
    return torch.where(p > 0, p * (p / reference).log(), 0.0).sum(1).mean()


def pac(p: Tensor, labels: Tensor) -> Tensor:
    """Return ``-mean_y ln Q[y, y]``."""
    return -centroids(p, labels).diagonal().log().mean()


def entropy_off(off: Tensor, dim: int = -1) -> Tensor:
    """Return the entropy of rows from all probabilities but the largest, exact for tiny ones."""
    rest = off.sum(dim)
    spread = torch.where(off > 0, -off * off.clamp(min=1e-300).log(), 0.0).sum(dim)
    return spread - (1 - rest) * torch.log1p(-rest)


def off_label(logits: Tensor, left_out: Tensor) -> Tensor:
    """Return softmax with the class ``left_out`` of each row set to 0."""
    gap = logits - logits.gather(1, left_out[:, None])
    weights = gap.exp().scatter(1, left_out[:, None], 0.0)
    return weights / (1 + weights.sum(1, keepdim=True))


def residual(logits: Tensor, labels: Tensor) -> Tensor:
    """Return CMI as entropy of the class mean less mean entropy, from off-label probabilities."""
    off, entropies = off_label(logits, labels), entropy_off(off_label(logits, logits.argmax(1)))
    total = torch.zeros((), dtype=torch.float64)
    for y in labels.unique():
        own = labels == y
        total = total + own.sum() * entropy_off(off[own].mean(0)) - entropies[own].sum()
    return total / labels.shape[0]


def _softmax(row: list[float]) -> list[Decimal]:
    weights = [(Decimal(z) - Decimal(max(row))).exp() for z in row]
    return [w / sum(weights) for w in weights]


def _mean(rows: list[list[Decimal]]) -> list[Decimal]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def decimals(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return KL to the class mean of each row, PAC, and the gradient of CMI, from 60 digits.

    Float64 cannot tell: where a mean is within 1e-16 of 1, its logarithm is all rounding.
    """
    count, given = len(logits), labels.tolist()
    with localcontext(prec=60):
        rows = [_softmax(row) for row in logits.tolist()]
        means = {y: _mean([rows[i] for i in range(count) if given[i] == y]) for y in set(given)}
        logs = {y: [q.ln() for q in mean] for y, mean in means.items()}
        gaps = [
            [p.ln() - q for p, q in zip(rows[i], logs[given[i]], strict=True)] for i in range(count)
        ]
        kl = [sum(p * gap for p, gap in zip(rows[i], gaps[i], strict=True)) for i in range(count)]
        dz = [
            [p * (gap - kl[i]) / count for p, gap in zip(rows[i], gaps[i], strict=True)]
            for i in range(count)
        ]
        pac = -sum(logs[y][y] for y in logs) / len(logs)
    return _tensor(kl), _tensor(pac), _tensor(dz)


def _tensor(values) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float64))
