"""The CMI ops in plain PyTorch: log1p entropies and logarithms, order-free sums."""

import torch
from torch import Tensor

from ..._cmi import log_distribution, to_limbs
from ._common import implement

LARGEST_CROSS_ENTROPY = 4096.0  # nats; a row above it counts as this much


def _rows(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities and log-probabilities ``[B, C]`` and entropies ``[B]``, in float64."""
    z = logits.to(torch.float64)
    peak, where = z.max(1, keepdim=True)
    shifted = z - peak
    weights = shifted.exp()
    rest = weights.scatter(1, where, 0.0).sum(1, keepdim=True)
    terms = torch.where(weights == 0, 0.0, weights * shifted).sum(1, keepdim=True)
    log_total = torch.log1p(rest)
    entropy = log_total - terms / (1 + rest)
    return weights / (1 + rest), shifted - log_total, entropy[:, 0]


def _row_scalars(logits: Tensor, labels: Tensor) -> Tensor:
    """Return what one row adds to its class ``labels``: float64 ``[B, C + EXTRA_COLUMNS]``."""
    p, log_p, entropy = _rows(logits)
    valid = ~torch.isnan(entropy)
    cross_entropy = -log_p.gather(1, labels[:, None])[:, 0]
    cross_entropy = torch.where(
        cross_entropy > LARGEST_CROSS_ENTROPY, LARGEST_CROSS_ENTROPY, cross_entropy
    )
    correct = (logits.argmax(1) == labels).to(p.dtype)
    extra = torch.stack([torch.ones_like(entropy), entropy, cross_entropy, correct], 1)
    scalars = torch.cat([p, extra], 1)
    scalars = torch.where(valid[:, None], scalars, 0.0)
    return torch.cat([scalars, (~valid).to(p.dtype)[:, None]], 1)


def _add(state: Tensor, rows: Tensor, index: Tensor) -> None:
    state.view(-1, rows.shape[1] * 2).index_add_(0, index, to_limbs(rows).flatten(1))


@implement
def cmi_update(
    state: Tensor, logits: Tensor, labels: Tensor, weight: Tensor | None, group: Tensor | None
) -> None:
    classes = logits.shape[1]
    base = 0 if group is None else group * classes
    if not labels.is_floating_point():
        rows = _row_scalars(logits, labels)
        _add(
            state, rows if weight is None else rows * weight.to(rows.dtype)[:, None], base + labels
        )
        return
    for y in range(classes):
        label = torch.full_like(labels[:, 0], y, dtype=torch.int64)
        weights = labels[:, y].to(torch.float64)
        weights = weights if weight is None else weights * weight.to(weights.dtype)
        _add(state, _row_scalars(logits, label) * weights[:, None], base + label)


def _log_reference(labels: Tensor, centroids: Tensor) -> Tensor:
    """Return the logarithm of each row's reference distribution ``[B, C]``."""
    centroids = centroids.to(torch.float64)
    if labels.is_floating_point():
        return (labels.to(torch.float64) @ centroids).log()
    return log_distribution(centroids)[labels]


@implement
def cmi_divergence(logits: Tensor, labels: Tensor, centroids: Tensor) -> Tensor:
    p, log_p, _ = _rows(logits)
    gap = log_p - _log_reference(labels, centroids)
    return torch.where(p == 0, 0.0, p * gap).sum(1)


@implement
def cmi_divergence_backward(
    grad: Tensor, logits: Tensor, labels: Tensor, centroids: Tensor
) -> Tensor:
    p, log_p, _ = _rows(logits)
    gap = torch.where(p == 0, 0.0, log_p - _log_reference(labels, centroids))
    row = torch.where(p == 0, 0.0, p * gap).sum(1, keepdim=True)
    return (grad.to(p.dtype)[:, None] * p * (gap - row)).to(logits.dtype)
