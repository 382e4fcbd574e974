"""CC: how differences from the teacher go together (Peng et al., ICCV 2019)."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from .._arguments import check_integer
from ..augment import Batch
from .base import DistillationLoss, Maps, Setup, Where, added
from .checks import check_pairs

MOST = 2**16  # dimensions of an embedding


class CC(DistillationLoss):
    """Mean over consecutive images of ``sum_k d_ik d_(i+1)k`` with ``d = |s - t|``.

    s and t are linear embeddings of the student's and the teacher's features ``[B, D]``, both
    trained. It stands for the congruence of correlations [CC, section 3] as comparisons of losses
    compute it. Summed over the taps; the pooled features by default. One image alone has a loss
    of 0.

    Args:
        taps: features; None for a named model's pooled ones.
        dimensions: of the embeddings.
    """

    place: ClassVar[Where] = "last"
    settings = ("dimensions",)
    student_embeddings: nn.ModuleList
    teacher_embeddings: nn.ModuleList

    def __init__(self, *, taps: Sequence[str] | None = None, dimensions: int = 128) -> None:
        super().__init__(taps=taps)
        check_integer("dimensions", dimensions, 1, MOST)
        self.dimensions = dimensions

    def prepare(self, setup: Setup) -> None:
        """Make the embeddings."""
        check_pairs(self, setup, 2)
        self.student_embeddings = self._embeddings(setup.student)
        self.teacher_embeddings = self._embeddings(setup.teacher)

    def _embeddings(self, features: Maps) -> nn.ModuleList:
        return nn.ModuleList(nn.Linear(x.shape[1], self.dimensions).to(x) for x in features)

    def forward(self, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
        """Return the loss of a batch, ``[]``."""
        embeddings = zip(self.student_embeddings, self.teacher_embeddings, strict=True)
        losses = []
        for (ours, theirs), s, t in zip(embeddings, student, teacher, strict=True):
            d = (ours(s) - theirs(t)).abs()  # [B, dimensions]
            losses.append((d[:-1] * d[1:]).sum() / max(len(d) - 1, 1))
        return added(losses)
