"""``DistillationLoss``: what the losses of the family share, and what a user's own must have."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from .._errors import InputError, seen
from ..augment import Batch
from ..models.taps import taps_of

Where = Literal["middle", "before_last", "last", "hint"]
PLACES: dict[Where, slice] = {  # among a model's taps: maps, then the pooled features
    "middle": slice(1, -1),
    "before_last": slice(-2, -1),
    "last": slice(-1, None),
    "hint": slice(2, 3),
}
Maps = Sequence[Tensor]


@dataclass(frozen=True)
class Setup:
    """What a loss is prepared with: both models, what they give for a batch, all labels.

    ``labels`` are those of all images that a batch's ``index`` counts, ``int64 [N]``, and ``pool``
    the indices that are trained on, both on the CPU; ``student`` and ``teacher`` hold what their
    taps give for ``batch``, in float32.
    """

    student_model: nn.Module
    teacher_model: nn.Module
    student: Maps
    teacher: Maps
    batch: Batch
    labels: Tensor
    pool: Tensor
    num_classes: int
    seed: int


@runtime_checkable
class Loss(Protocol):
    """What a module must have to be one of ``losses``: taps, and a forward pass as below."""

    taps: tuple[str, ...]

    def __call__(self, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
        """Return the loss of a batch, ``[]``."""
        ...


class DistillationLoss(nn.Module):
    """A loss of features, logits or both, with parameters of its own where it needs them.

    A subclass says which taps it compares by default and computes the loss of a batch; one that has
    parameters makes them in :meth:`prepare`. Tensors are those of the student's and the teacher's
    taps, in their order, in float32 or wider.

    Args:
        taps: names of modules of both models, ``name:input`` for what a module is given, and
            ``logits`` for a model's result; None for a named model's own.
    """

    place: ClassVar[Where] = "middle"
    """Which of a model's taps it compares by default."""
    takes_mixed_labels: ClassVar[bool] = True
    """Whether it is defined for images that are mixed from two."""
    settings: ClassVar[tuple[str, ...]] = ()
    """Attributes that its text shows, by which a resumed run knows that it is the same loss."""

    def __init__(self, *, taps: Sequence[str] | None = None) -> None:
        super().__init__()
        self.taps: tuple[str, ...] | None = None if taps is None else named_taps(taps)

    def taps_of(self, student: nn.Module, teacher: nn.Module) -> tuple[list[str], list[str]]:
        """Return the taps of either model.

        Raises:
            InputError: none were named, and a model has none of its own.
        """
        if self.taps is not None:
            return [*self.taps], [*self.taps]
        place = PLACES[self.place]
        return [*taps_of(student)[place]], [*taps_of(teacher)[place]]

    def prepare(self, setup: Setup) -> None:
        """Make parameters and buffers for these models; random numbers are seeded already.

        Raises:
            InputError: the maps cannot be compared.
        """

    def begin_epoch(self, epoch: int) -> None:
        """Run before an epoch's first batch, and again before what is left of a resumed one."""

    def forward(self, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
        """Return the loss of a batch, ``[]``."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Return the taps, if they were named, and the settings."""
        taps = [] if self.taps is None else [f"taps={list(self.taps)}"]
        return ", ".join([*taps, *(f"{name}={getattr(self, name)}" for name in self.settings)])


def named_taps(taps: object) -> tuple[str, ...]:
    """Return taps as names.

    Raises:
        InputError: they are something else.
    """
    if isinstance(taps, Sequence) and not isinstance(taps, str):
        names = tuple(taps)
        if names and all(isinstance(name, str) for name in names):
            return names
    raise InputError(f"taps: expected a list of names, got {seen(taps)}")


def pooled_alike(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return maps ``[B, C, H, W]`` of one size: the larger is pooled by adaptive averages."""
    size = [min(pair) for pair in zip(student.shape[2:], teacher.shape[2:], strict=True)]
    return _pooled(student, size), _pooled(teacher, size)


def _pooled(maps: Tensor, size: list[int]) -> Tensor:
    given = list(maps.shape[2:])
    if given == size:
        return maps
    if all(a % b == 0 for a, b in zip(given, size, strict=True)):  # adds in one order on GPUs, too
        return functional.avg_pool2d(maps, (given[0] // size[0], given[1] // size[1]))
    return functional.adaptive_avg_pool2d(maps, (size[0], size[1]))


def check_maps(loss: nn.Module, maps: Maps, dimensions: int) -> None:
    """Raise InputError where a tap's values do not have so many dimensions."""
    for value in maps:
        if value.dim() != dimensions:
            raise InputError(
                f"{type(loss).__name__}: a tap gives {list(value.shape)}, expected"
                f" {dimensions} dimensions; name taps that give"
                f" {'maps [B, C, H, W]' if dimensions == 4 else 'features [B, D]'}"
            )


def refuse_mixed(loss: nn.Module, batch: Batch) -> None:
    """Raise InputError for mixed images: a loss by class has no class for them."""
    if batch.partner_labels is not None:
        raise InputError(
            f"{type(loss).__name__}: is not defined for images mixed from two, which have no class"
            " of their own; choose a strategy without cutmix and mixup"
        )


def unit_rows(x: Tensor) -> Tensor:
    """Return rows of length 1; a row of zeros stays, and has no gradient.

    Rows as small or as large as the dtype's numbers are right, too: their squares are not.
    """
    unit: Tensor = UnitRows.apply(x)
    return unit


def normalised(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows of length 1, and two factors whose product was their length; inf for zeros."""
    largest = torch.linalg.vector_norm(x, torch.inf, -1, keepdim=True)
    scale = torch.where(largest >= torch.finfo(x.dtype).tiny, largest, torch.inf)
    scaled = x / scale  # its largest value is 1, or all are 0
    length = torch.linalg.vector_norm(scaled, 2, -1, keepdim=True).clamp_(min=1)
    return scaled.div_(length), scale, length


def added(losses: Iterable[Tensor]) -> Tensor:
    """Return the sum of some losses ``[]``."""
    return reduce(torch.add, losses)


class UnitRows(torch.autograd.Function):
    """``x / |x|`` over the last dimension: ``dx = (g - y (y . g)) / |x|``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return the rows."""
        y, scale, length = normalised(x)
        ctx.save_for_backward(y, scale, length)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Return the gradient of x."""
        y, scale, length = ctx.saved_tensors
        along = torch.linalg.vecdot(y, grad).unsqueeze(-1)
        return torch.addcmul(grad, y, along, value=-1).div_(scale).div_(length)
