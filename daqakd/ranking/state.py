"""``CMIState``: class sums behind CMI and PAC, mergeable, with a fold left out at will."""

from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor

from .._arguments import device_of
from .._cmi import from_limbs, log_distribution
from .._errors import InputError
from .._ops import accumulation_dtype, overload
from ..backends import choose
from ..functional import cmi_update
from ..functional.cmi import centroids_of, check_rows, new_state
from .arguments import (
    check_batch,
    check_count,
    check_saved,
    check_weights,
    folds_of,
)
from .confidence import jackknife_error

Labels = Tensor | tuple[Tensor, Tensor, Tensor]
ROWS_PER_CHUNK = 8192


@dataclass(frozen=True)
class Measures:
    """What the teacher's predictions say, in nats; accuracy is a fraction."""

    cmi: float
    pac: float
    cross_entropy: float
    entropy: float
    accuracy: float


@dataclass
class SoftRows:
    """Kept rows of mixed images: their reference is a mixture of centroids, not a sum."""

    log_probs: Tensor  # float32 or float64 [N, C]
    targets: Tensor  # floating point [N, C]
    fold: Tensor  # int64 [N]

    def select(self, keep: Tensor) -> "SoftRows":
        """Return the rows where ``keep`` is true."""
        return SoftRows(self.log_probs[keep], self.targets[keep], self.fold[keep])


def _dense(labels: Labels, logits: Tensor) -> Tensor | None:
    """Return probabilities ``[B, C]`` of soft labels, None for hard ones."""
    if isinstance(labels, Tensor):
        return labels if labels.is_floating_point() else None
    first, second, weight = labels
    rows = torch.zeros_like(logits, dtype=torch.float32)
    rows.scatter_(1, first[:, None], weight[:, None].float())
    return rows.scatter_add_(1, second[:, None], 1 - weight[:, None].float())


class CMIState:
    """Streaming estimate of CMI and PAC from a teacher's logits and labels.

    ``CMI = mean_i KL(p_i || Q^{y_i})`` and ``PAC = -(1/C) sum_y ln Q^y[y]`` with the class
    centroids ``Q^y``, the mean prediction of class y [MCMI, DAQAKD]. Sums are exact integers:
    batches, folds and ranks merge bit for bit in any order. For soft labels the reference of an
    image is the mixture of centroids, so the rows are kept too.

    Args:
        num_classes: C.
        folds: parts that can be left out, for :meth:`standard_error`.
        device: of the state; None for the CPU.
        legacy_transposed: for soft labels, use the transposed centroids of the authors' code, for
            parity with their numbers.

    >>> state = CMIState(2)
    >>> state.update(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
    >>> round(state.pac(), 4)
    0.2201
    """

    def __init__(
        self,
        num_classes: int,
        *,
        folds: int = 1,
        device: torch.device | str | None = None,
        legacy_transposed: bool = False,
    ) -> None:
        check_count("num_classes", num_classes)
        check_count("folds", folds)
        self.num_classes, self.folds = num_classes, folds
        self.legacy_transposed = legacy_transposed
        self.sums = new_state(num_classes, folds, device_of(device))
        self.soft: list[SoftRows] = []

    def update(self, logits: Tensor, labels: Labels, fold: int | Tensor = 0) -> None:
        """Add a batch.

        Args:
            logits: ``[B, C]``.
            labels: int64 ``[B]``, probabilities ``[B, C]``, or for two mixed images the tuple
                (first labels, second labels, weight of the first), each ``[B]``.
            fold: the fold of the whole batch, or int64 ``[B]``.

        Raises:
            InputError: another type or shape.
        """
        check_batch(logits, labels)
        folds = folds_of(fold, logits, self.folds)
        if isinstance(labels, Tensor):
            cmi_update(self.sums, logits, labels, group=folds)
        else:
            first, second, weight = labels
            cmi_update(self.sums, logits, first, weight=weight, group=folds)
            cmi_update(self.sums, logits, second, weight=1 - weight, group=folds)
        dense = _dense(labels, logits)
        if dense is not None:
            check_rows(logits, dense)
            log_probs = torch.log_softmax(logits.to(accumulation_dtype(logits.dtype)), 1)
            self.soft.append(SoftRows(log_probs, dense, folds))

    def merge(self, other: Self) -> None:
        """Add another state of the same classes and folds."""
        if not isinstance(other, CMIState):
            raise InputError(f"other: expected a CMIState, got {type(other).__name__}")
        if (other.num_classes, other.folds) != (self.num_classes, self.folds):
            raise InputError(
                f"other: has {other.num_classes} classes and {other.folds} folds, this state has"
                f" {self.num_classes} and {self.folds}; make both alike"
            )
        self.sums += other.sums.to(self.sums.device)
        self.soft += other.soft

    def all_reduce(self) -> None:
        """Merge the states of all ranks of ``torch.distributed``."""
        if not dist.is_initialized():
            return
        dist.all_reduce(self.sums)
        gathered: list[Any] = [None] * dist.get_world_size()
        mine = [(r.log_probs.cpu(), r.targets.cpu(), r.fold.cpu()) for r in self.soft]
        dist.all_gather_object(gathered, mine)
        rows = [SoftRows(*(t.to(self.sums.device) for t in r)) for part in gathered for r in part]
        self.soft = rows

    def _rows(self) -> SoftRows | None:
        """Return the kept rows as one block, None when all labels were hard."""
        if len(self.soft) > 1:
            parts = self.soft
            self.soft = [
                SoftRows(
                    torch.cat([r.log_probs for r in parts]),
                    torch.cat([r.targets for r in parts]),
                    torch.cat([r.fold for r in parts]),
                )
            ]
        return self.soft[0] if self.soft else None

    def measures(self, left_out: int | None = None) -> Measures:
        """Return all measures, over every fold or with one left out (centroids included).

        Raises:
            InputError: the state is empty, a prediction was NaN, or there is no such fold.
        """
        if left_out is not None and left_out not in range(self.folds):
            raise InputError(
                f"left_out: expected a fold from 0 to {self.folds - 1} or None, got {left_out!r}"
            )
        limbs = self.sums.sum(0)
        limbs = limbs if left_out is None else limbs - self.sums[left_out]
        sums = from_limbs(limbs)  # [C, C + 5]
        classes = self.num_classes
        mass, entropy, cross_entropy, correct, invalid = sums[:, classes:].unbind(1)
        total = mass.sum()
        nans = int(invalid.sum())
        if total == 0 or nans > 0:
            bad = f"saw {nans} rows of NaN logits, or on a GPU of labels out of range"
            what = bad if nans else "is empty"
            raise InputError(f"the CMI state {what}; nothing can be computed from it")
        centroids = centroids_of(sums)
        log_centroids = log_distribution(centroids)
        surprise = torch.where(centroids == 0, 0.0, -centroids * log_centroids)  # 0 ln 0 is 0
        return Measures(
            cmi=self._cmi(sums, surprise.sum(1), left_out),
            pac=-log_centroids.diagonal()[mass > 0].mean().item(),
            cross_entropy=(cross_entropy.sum() / total).item(),
            entropy=(entropy.sum() / total).item(),
            accuracy=(correct.sum() / total).item(),
        )

    def _cmi(self, sums: Tensor, centroid_entropy: Tensor, left_out: int | None) -> float:
        rows = self._rows()
        if rows is not None:
            return self._soft_cmi(rows, sums, left_out)
        mass, entropy = sums[:, self.num_classes], sums[:, self.num_classes + 1]
        return ((mass * centroid_entropy - entropy).sum() / mass.sum()).item()

    def _soft_cmi(self, rows: SoftRows, sums: Tensor, left_out: int | None) -> float:
        if left_out is not None:
            rows = rows.select(rows.fold != left_out)
        centroids = centroids_of(sums)
        if self.legacy_transposed:
            mass = sums[:, self.num_classes, None]
            centroids = (centroids * mass).T / mass
        total = 0.0
        for start in range(0, len(rows.fold), ROWS_PER_CHUNK):
            part = slice(start, start + ROWS_PER_CHUNK)
            log_probs, targets = rows.log_probs[part], rows.targets[part].double()
            rows_kl: Tensor = overload("cmi_divergence", choose("cmi", log_probs))(
                log_probs, targets, centroids
            )
            total += float(rows_kl.sum())
        return total / len(rows.fold)

    def cmi(self) -> float:
        """Return the contextual mutual information in nats."""
        return self.measures().cmi

    def pac(self) -> float:
        """Return the prediction-accuracy constraint in nats; empty classes are left out."""
        return self.measures().pac

    def score(self, cmi_weight: float = 1.0, pac_weight: float = 1.0) -> float:
        """Return ``pac_weight * PAC - cmi_weight * CMI``; lower is better."""
        check_weights(cmi_weight=cmi_weight, pac_weight=pac_weight)
        measured = self.measures()
        return pac_weight * measured.pac - cmi_weight * measured.cmi

    def leave_one_out(self) -> list[Measures]:
        """Return the measures with each fold left out in turn."""
        return [self.measures(fold) for fold in range(self.folds)]

    def standard_error(self, cmi_weight: float = 1.0, pac_weight: float = 1.0) -> float:
        """Return the jackknife standard error of the score over the folds, two or more."""
        check_weights(cmi_weight=cmi_weight, pac_weight=pac_weight)
        if self.folds < 2:
            raise InputError("folds: a standard error needs 2 or more, this state has 1")
        left_out = self.leave_one_out()
        return jackknife_error([pac_weight * m.pac - cmi_weight * m.cmi for m in left_out])

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state as tensors."""
        state = {"sums": self.sums}
        rows = self._rows()
        if rows is not None:
            state |= {"log_probs": rows.log_probs, "targets": rows.targets, "fold": rows.fold}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` returned; anything else is an :class:`InputError`."""
        check_saved(state, self.sums)
        self.sums.copy_(state["sums"])
        soft = "log_probs" in state
        self.soft = [SoftRows(state["log_probs"], state["targets"], state["fold"])] if soft else []
