"""CRD: contrast with a teacher's view of other images (Tian et al., ICLR 2020)."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from .. import _ranks
from .._errors import InputError
from ..augment import Batch
from ..augment.draws import MASK, NEGATIVES, philox
from .base import DistillationLoss, Maps, Setup, Where, check_maps, refuse_mixed, unit_rows

DENSE = 8  # images per negative up to which all scores cost less than those of the drawn ones
MIX = (0x85EBCA6B, 0xC2B2AE35)  # MurmurHash3's finalizer
WEYL = 0x9E3779B9


class CRD(DistillationLoss):
    """Noise-contrastive loss of embedded features against banks of both models' [CRD, eqs. 17, 18].

    Linear embeddings of length 1 of the student's and the teacher's features are scored against
    the other model's bank, ``exp(<v, m> / temperature) / Z``: the image's own row against
    ``negatives`` rows of images of other classes, drawn with replacement by (seed, epoch, image).
    Z is a constant, from the first batch. Rows follow their image with momentum, on all ranks
    alike. Both directions are summed, means over the images.

    Args:
        taps: features ``[B, D]``; None for a named model's pooled ones.
        dimensions: of the embeddings.
        negatives: per image.
        temperature: of the scores; 0.1 in the quantization papers, 0.07 in CRD's.
        momentum: of the rows.
    """

    place: ClassVar[Where] = "last"
    takes_mixed_labels: ClassVar[bool] = False
    settings: ClassVar[tuple[str, ...]] = ("dimensions", "negatives", "temperature", "momentum")
    embeddings: nn.ModuleList
    student_bank: Tensor  # [N, dimensions], by class
    teacher_bank: Tensor
    log_odds: Tensor  # [2]
    rows: Tensor  # int64, of every image; -1 outside of the pool
    sizes: Tensor  # int64 [C], of the classes
    starts: Tensor  # int64 [C], of their first rows

    def __init__(
        self,
        *,
        taps: Sequence[str] | None = None,
        dimensions: int = 128,
        negatives: int = 16384,
        temperature: float = 0.1,
        momentum: float = 0.5,
    ) -> None:
        super().__init__(taps=taps)
        self.dimensions, self.negatives = dimensions, negatives
        self.temperature, self.momentum = temperature, momentum
        self.epoch = self.seed = 0

    def prepare(self, setup: Setup) -> None:
        """Make embeddings and banks, and Z of the batch."""
        check_maps(self, [*setup.student, *setup.teacher], 2)
        if len(setup.labels[setup.pool].unique()) < 2:
            raise InputError("CRD: all images have one class, so there is no negative; add another")
        self.seed, features = setup.seed, (setup.student[0], setup.teacher[0])
        device = features[0].device
        self.embeddings = nn.ModuleList(nn.Linear(f.shape[1], self.dimensions) for f in features)
        self.embeddings.to(device)
        self._order(setup.labels, setup.pool, device)
        bound = math.sqrt(3 / self.dimensions)
        for name in ("student_bank", "teacher_bank"):
            rows = torch.empty(len(setup.pool), self.dimensions).uniform_(-bound, bound)
            self.register_buffer(name, rows.to(device))
        self.register_buffer("log_odds", torch.zeros(2, device=device))
        with torch.no_grad():
            self.log_odds.copy_(torch.stack(self._log_odds(features, setup.batch)))

    def _order(self, labels: Tensor, pool: Tensor, device: torch.device) -> None:
        """Give every image of the pool a row, sorted by class."""
        order = pool[labels[pool].argsort(stable=True)]
        rows = torch.full((len(labels),), -1).scatter(0, order, torch.arange(len(order)))
        sizes = torch.bincount(labels[pool])
        parts = {"rows": rows, "sizes": sizes, "starts": sizes.cumsum(0) - sizes}
        for name, value in parts.items():
            self.register_buffer(name, value.to(device), persistent=False)

    def begin_epoch(self, epoch: int) -> None:
        """Draw other negatives."""
        self.epoch = epoch

    def _drawn(self, index: Tensor, labels: Tensor) -> Tensor:
        """Return the negatives' rows, ``int64 [B, K]``."""
        keys = philox(self.seed, self.epoch, index, NEGATIVES)
        numbers = torch.arange(self.negatives, device=index.device) * WEYL
        words = (keys[:, :1] + numbers) & MASK
        for factor, key in zip(MIX, keys[:, 1:3].unbind(1), strict=True):
            words = ((words ^ (words >> 16) ^ key[:, None]) * factor) & MASK
        words = words ^ (words >> 15)
        sizes, starts = self.sizes[labels, None], self.starts[labels, None]
        others = (words * (len(self.student_bank) - sizes)) >> 32
        return torch.where(others >= starts, others + sizes, others)  # past the own class

    def _embedded(self, features: Maps) -> list[Tensor]:
        pairs = zip(self.embeddings, features, strict=True)
        return [unit_rows(embedding(x)) for embedding, x in pairs]

    def _log_odds(self, features: Maps, batch: Batch) -> list[Tensor]:
        """Return log(K Z / N) of either direction: the mean of exp(score) stands for Z / N."""
        index = _index_of(batch)
        drawn = self._drawn(index, batch.labels)
        found = []
        for v, bank in zip(self._embedded(features), self._banks, strict=True):
            rows = torch.cat([self.rows[index, None], drawn], 1)
            scores = torch.stack([bank[r] @ x for r, x in zip(rows, v, strict=True)])
            scores = (scores / self.temperature).double().flatten()
            mean = scores.logsumexp(0) - math.log(len(scores))
            found.append((mean + math.log(self.negatives)).float())
        return found

    @property
    def _banks(self) -> tuple[Tensor, Tensor]:
        """Those that the student's and the teacher's embeddings are scored against."""
        return self.teacher_bank, self.student_bank

    def forward(self, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
        """Return the loss of a batch, ``[]``; in training mode the banks follow."""
        refuse_mixed(self, batch)
        index = _index_of(batch)
        drawn, own = self._drawn(index, batch.labels), self.rows[index]
        embedded = self._embedded([student[0], teacher[0]])
        losses: list[Tensor] = [
            NoiseContrast.apply(v, bank, own, drawn, odds, self.temperature)
            for v, bank, odds in zip(embedded, self._banks, self.log_odds.unbind(), strict=True)
        ]
        if self.training:
            self._follow(own, embedded)
        return losses[0] + losses[1]

    @torch.no_grad()
    def _follow(self, own: Tensor, embedded: list[Tensor]) -> None:
        """Move the rows of all ranks' images."""
        own = _of_all_ranks(own)
        for bank, v in zip((self.student_bank, self.teacher_bank), embedded, strict=True):
            new = _of_all_ranks(v.detach().to(bank.dtype))
            moved = torch.lerp(new, bank[own], self.momentum)
            bank.index_copy_(0, own, unit_rows(moved))


def _index_of(batch: Batch) -> Tensor:
    """Return which images they are, on their device."""
    return batch.index.to(batch.labels.device, non_blocking=True)


def _of_all_ranks(rows: Tensor) -> Tensor:
    """Return the rows of the whole batch, whose shares are equal in training."""
    return rows if _ranks.count() == 1 else _ranks.stacked(rows).flatten(0, 1)


class NoiseContrast(torch.autograd.Function):
    """The mean over images of ``softplus(c - s_own) + sum softplus(s_drawn - c)``.

    That is ``-log(p / (p + K / N))`` of the own score and ``-log((K / N) / (p + K / N))`` of the
    others' for p = exp(s) / Z and c = log(K Z / N), without a quotient. The gradient is made in the
    forward pass, so that the bank may change before the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        v: Tensor,
        bank: Tensor,
        own: Tensor,
        drawn: Tensor,
        log_odds: Tensor,
        temperature: float,
    ) -> Tensor:
        """Return the loss of embeddings ``[B, D]`` against a bank ``[N, D]``."""
        dense = len(bank) <= DENSE * drawn.shape[1]
        loss, grad = (_dense if dense else _by_image)(v, bank, drawn, log_odds, temperature)
        positive = bank[own]
        margin = log_odds - (v * positive).sum(1) / temperature
        loss = loss + functional.softplus(margin).sum()
        grad = grad - margin.sigmoid()[:, None] * positive
        ctx.save_for_backward(grad / (temperature * len(v)))
        return loss / len(v)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of the embeddings."""
        (grad,) = ctx.saved_tensors
        return grad * grad_output, None, None, None, None, None


def _dense(
    v: Tensor, bank: Tensor, drawn: Tensor, log_odds: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Score all rows, and weight them by how often each was drawn."""
    margins = (v @ bank.T).div_(temperature).sub_(log_odds)
    counts = torch.zeros_like(margins)
    counts.scatter_add_(1, drawn, torch.ones_like(margins[:, :1]).expand(drawn.shape))
    loss = (functional.softplus(margins) * counts).sum()
    return loss, margins.sigmoid_().mul_(counts) @ bank


def _by_image(
    v: Tensor, bank: Tensor, drawn: Tensor, log_odds: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Score the drawn rows, of one image after another: a batch's would not fit."""
    losses, grads = [], []
    for x, rows in zip(v, drawn, strict=True):
        chosen = bank[rows]
        margins = (chosen @ x) / temperature - log_odds
        losses.append(functional.softplus(margins).sum())
        grads.append(margins.sigmoid() @ chosen)
    return torch.stack(losses).sum(), torch.stack(grads)
