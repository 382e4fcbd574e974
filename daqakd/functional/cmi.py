"""Contextual mutual information of predictions given labels (Ye et al., ICLR 2024)."""

from typing import Any

import torch
from torch import Tensor

from .._cmi import EXTRA_COLUMNS, from_limbs
from .._errors import InputError
from ..backends import choose
from ..backends.contract import FLOATS
from . import _checks
from ._apply import first_order, implementation


class CMIDivergenceFunction(torch.autograd.Function):
    """Per-row KL to a centroid held constant: the envelope rule makes that the full gradient."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, centroids: Tensor, backend: str
    ) -> Tensor:
        """Return KL(p_i || reference_i) per row."""
        ctx.save_for_backward(logits, labels, centroids)
        ctx.backend = backend
        rows: Tensor = implementation("cmi_divergence", backend)(logits, labels, centroids)
        return rows

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of the logits."""
        run = implementation("cmi_divergence_backward", ctx.backend)
        return run(grad, *ctx.saved_tensors), None, None, None


def check_rows(logits: Tensor, labels: Tensor) -> None:
    """Require logits ``[B, C]`` and labels ``[B]`` (int64) or ``[B, C]`` (probabilities)."""
    _checks.floating("logits", logits)
    if logits.dim() != 2 or logits.shape[1] == 0:
        raise InputError(f"logits: expected [B, C], got {tuple(logits.shape)}")
    _checks.labels(labels, logits)


def new_state(classes: int, groups: int = 1, device: torch.device | str | None = None) -> Tensor:
    """Return an empty ``cmi_update`` state: int64 ``[groups, C, C + 5, 2]``.

    It takes ``16 C (C + 5)`` bytes per group: 0.2 MB for 100 classes, 16 MB for 1,000, 16 GB for a
    vocabulary of 32,000, where only divergences from given centroids are practical.
    """
    _checks.integer("classes", classes, 1)
    _checks.integer("groups", groups, 1)
    columns = classes + EXTRA_COLUMNS
    return torch.zeros((groups, classes, columns, 2), dtype=torch.int64, device=device)


def _check_update(
    state: Tensor, logits: Tensor, labels: Tensor, weight: Tensor | None, group: Tensor | None
) -> None:
    check_rows(logits, labels)
    classes = logits.shape[1]
    wanted = (classes, classes + EXTRA_COLUMNS, 2)
    _checks.tensor("state", state)
    fits = state.dim() == 4 and state.shape[1:] == wanted and len(state) > 0
    if not fits or state.dtype != torch.int64 or not state.is_contiguous():
        raise InputError(
            f"state: expected contiguous int64 [groups, {', '.join(map(str, wanted))}], got"
            f" {state.dtype} {tuple(state.shape)}; make it with new_state()"
        )
    _checks.same_device("state", state, logits, "the logits")
    if weight is not None:
        _check_row_values("weight", weight, logits, "floating point")
    if group is not None:
        _check_row_values("group", group, logits, "int64")


def _check_row_values(name: str, value: Tensor, logits: Tensor, kind: str) -> None:
    _checks.tensor(name, value)
    is_kind = value.dtype == torch.int64 if kind == "int64" else value.dtype in FLOATS
    if value.shape != logits.shape[:1] or not is_kind:
        raise InputError(
            f"{name}: expected {kind} [{len(logits)}], got {value.dtype} {tuple(value.shape)}"
        )
    _checks.same_device(name, value, logits, "the logits")


def cmi_update(
    state: Tensor,
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    group: Tensor | None = None,
    backend: str | None = None,
) -> None:
    """Add a batch to the class sums behind CMI and PAC, in place.

    The sums are integers, so batches, folds and ranks merge by addition, in any order, bit for bit.
    No result is read back: on a GPU a row whose label or group is out of range counts as invalid.

    Args:
        state: int64 ``[groups, C, C + 5, 2]`` from :func:`new_state`: per class the summed
            predictions, then mass, entropy, cross-entropy, correct and invalid rows.
        logits: ``[B, C]`` floating point; log-probabilities serve as well.
        labels: int64 ``[B]``, or probabilities ``[B, C]``.
        weight: optional ``[B]``: how much each row counts.
        group: optional int64 ``[B]``: the group (fold, strategy) each row adds to.
        backend: ``"reference"``, ``"triton"``, ``"native"`` or None for the automatic choice.

    Raises:
        InputError: shapes or dtypes do not fit.
    """
    _check_update(state, logits, labels, weight, group)
    implementation("cmi_update", choose("cmi", logits, backend))(
        state, logits.detach(), labels, weight, group
    )


def centroids_of(sums: Tensor) -> Tensor:
    """Return the class centroids Q ``[..., C, C]`` in float64 of joined sums ``[..., C, C + 5]``.

    Row y is the mean prediction of class y (method: ``Q^y``); rows of empty classes are zero.
    """
    classes = sums.shape[-2]
    mass = sums[..., classes, None]
    return sums[..., :classes] / torch.where(mass == 0, 1.0, mass)


def _batch_centroids(logits: Tensor, labels: Tensor, backend: str) -> Tensor:
    """Return the centroids ``[C, C]`` of a batch's own predictions."""
    if labels.is_floating_point():
        raise InputError(
            "centroids: soft labels need fixed centroids; their reference is a mixture of"
            " centroids, whose gradient the envelope rule does not give"
        )
    state = new_state(logits.shape[1], device=logits.device)
    cmi_update(state, logits, labels, backend=backend)
    return centroids_of(from_limbs(state))[0]


def _check_centroids(centroids: Tensor, logits: Tensor) -> None:
    _checks.floating("centroids", centroids)
    classes = logits.shape[1]
    if centroids.shape != (classes, classes):
        raise InputError(
            f"centroids: expected [{classes}, {classes}], got {tuple(centroids.shape)}"
        )
    _checks.same_device("centroids", centroids, logits, "the logits")


def cmi(
    logits: Tensor,
    labels: Tensor,
    *,
    centroids: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Contextual mutual information ``mean_i KL(p_i || Q^{y_i})`` in nats, differentiable [MCMI].

    With ``centroids=None`` the centroids come from the batch itself; the gradient may hold them
    constant, because the mean KL to a class's own mean does not change with that mean to first
    order (envelope theorem): ``dCMI/dz_i = p_i * (ln p_i - ln Q^{y_i} - KL_i) / N``.

    Args:
        logits: ``[N, C]`` floating point.
        labels: int64 ``[N]``, or probabilities ``[N, C]`` together with ``centroids``.
        centroids: optional constant ``[C, C]``, row = class.
        backend: ``"reference"``, ``"triton"``, ``"native"`` or None for the automatic choice.

    Returns:
        0-dim float64.

    Raises:
        InputError: shapes do not fit, or soft labels come without centroids: their reference is a
            mixture of centroids, to which the envelope theorem does not apply.

    >>> p = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8]])
    >>> round(float(cmi(p.log(), torch.tensor([0, 0, 1]))), 6)
    0.022069
    """
    check_rows(logits, labels)
    chosen = choose("cmi", logits, backend)
    if centroids is None:
        centroids = _batch_centroids(logits, labels, chosen)
    else:
        _check_centroids(centroids, logits)
    rows: Tensor = CMIDivergenceFunction.apply(
        logits, labels, centroids.detach().to(torch.float64), chosen
    )
    return rows.sum() / max(len(rows), 1)
