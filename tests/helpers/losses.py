"""The losses of feature distillation as their tests see them: shapes, setups, gradients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

import daqakd
from daqakd.augment import Batch
from daqakd.losses import LOSSES, DistillationLoss, Setup

from . import slow_losses

CLASSES = 5
Shape = tuple[int, ...]  # without the batch


@dataclass(frozen=True)
class Case:
    """A loss, and what its taps give for one image."""

    name: str
    student: Sequence[Shape]
    teacher: Sequence[Shape]
    options: dict = field(default_factory=dict)

    @property
    def slow(self) -> Callable[..., Tensor]:
        return getattr(slow_losses, self.name)

    def loss(self) -> DistillationLoss:
        return LOSSES[self.name](**self.options)

    def __str__(self) -> str:
        return "-".join([self.name, *("x".join(map(str, shape)) for shape in self.student)])


MAP, SMALL, WIDE, ODD = (3, 6, 6), (5, 3, 3), (4, 6, 6), (4, 5, 3)
FEW_PIXELS = (6, 2, 2)  # less than channels
CASES = [
    Case("at", [MAP, SMALL], [WIDE, WIDE]),
    Case("nst", [MAP, SMALL], [WIDE, WIDE]),
    Case("nst", [ODD, FEW_PIXELS], [MAP, FEW_PIXELS]),
    Case("sp", [MAP, (7,)], [SMALL, (3,)]),
    Case("rkd", [(6,)], [(6,)]),
    Case("rkd", [(3,), (4,)], [(7,), (2,)], {"distance_weight": 2.0, "angle_weight": 0.5}),
    Case("dkd", [(CLASSES,)], [(CLASSES,)]),
    Case("dkd", [(CLASSES,)], [(CLASSES,)], {"alpha": 3.0, "beta": 0.25, "temperature": 0.5}),
    Case("fitnet", [MAP, MAP], [WIDE, SMALL]),
    Case("fitnet", [SMALL, ODD], [MAP, (2, 4, 3)]),
    Case("cc", [(6,), (3,)], [(6,), (7,)], {"dimensions": 4}),
    Case("pkt", [(6,), (4,)], [(6,), (7,)]),
    Case("dist", [(CLASSES,)], [(CLASSES,)]),
    Case("dist", [(CLASSES,)], [(CLASSES,)], {"beta": 2.0, "gamma": 0.5, "temperature": 4.0}),
    Case("ft", [MAP, SMALL], [WIDE, WIDE], {"ratio": 0.75}),
    Case("squat", [(4, 6, 6), (4, 4, 4)], [(4, 6, 6), (4, 4, 4)], {"taps": ["1", "2"]}),
    Case("vid", [MAP, SMALL], [WIDE, WIDE], {"variance": 5.0}),
]


def maps(shapes: Sequence[Shape], batch: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.randn(batch, *shape, dtype=dtype) for shape in shapes]


def batch_of(size: int) -> Batch:
    labels = (3 * torch.arange(size) + 1) % CLASSES
    return Batch(torch.zeros(size, 3, 1, 1), labels, torch.arange(size))


def setup_of(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    models: tuple[nn.Module, nn.Module] | None = None,
) -> Setup:
    batch = batch_of(len(student[0]))
    models = models or (nn.Identity(), nn.Identity())
    return Setup(*models, student, teacher, batch, batch.labels, batch.index, CLASSES, seed=0)


def small_models(dtype: torch.dtype = torch.float32) -> tuple[nn.Module, nn.Module]:
    """Return a student of four convolutions, the middle ones with unsigned input, and a teacher."""

    def convolutions() -> nn.Module:
        return nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()),
            nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()),
            nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()),
            nn.Conv2d(4, 2, 2),
            nn.Flatten(),
        )

    student = daqakd.quantize(convolutions(), weight_bits=2, act_bits=2)
    daqakd.calibrate(student, [torch.randn(4, 3, 8, 8)])
    return student.to(dtype), convolutions().to(dtype)


def prepared(case: Case, batch: int, dtype: torch.dtype = torch.float64):
    """Return a loss, and random maps of the student and the teacher."""
    student, teacher = maps(case.student, batch, dtype), maps(case.teacher, batch, dtype)
    loss = case.loss()
    loss.prepare(setup_of(student, teacher, small_models(dtype) if case.name == "squat" else None))
    return loss, student, teacher


def trained(loss: nn.Module) -> list[nn.Parameter]:
    """Return what of a loss is trained with the student."""
    return getattr(loss, "trained_parameters", lambda: [*loss.parameters()])()


def value_and_gradients(
    function: Callable[[Sequence[Tensor]], Tensor], student: Sequence[Tensor], others=()
) -> tuple[Tensor, list[Tensor]]:
    """Return a loss of the student's maps, and the gradients of these and of ``others``."""
    leaves = [s.detach().clone().requires_grad_() for s in student]
    value = function(leaves)
    inputs = [*leaves, *others]
    gradients = torch.autograd.grad(value, inputs, allow_unused=True)
    zeros = [
        torch.zeros_like(x) if g is None else g for x, g in zip(inputs, gradients, strict=True)
    ]
    return value.detach(), zeros
