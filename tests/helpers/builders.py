"""Functions that ``--model`` may name, most of them wrong."""

from typing import Any, cast

import torch
from torch import nn

from .small import SmallNet


def fails(num_classes: int) -> nn.Module:
    raise RuntimeError(f"no weights\nfor {num_classes} classes")


def other_argument(classes: int) -> nn.Module:
    return SmallNet(classes)


def number(num_classes: int) -> int:
    return num_classes


def lazy(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))


def large_images(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, num_classes))


def more_classes(num_classes: int) -> nn.Module:
    return SmallNet(num_classes + 2)


def pixels(num_classes: int) -> nn.Module:
    return nn.Conv2d(3, num_classes, 1)


class Wrapping(SmallNet):
    def forward(self, x):
        return {"loss": None, "answer": self.wrap(super().forward(x))}

    def wrap(self, logits):
        return logits


class Nothing(Wrapping):
    def wrap(self, logits):
        return None


def nothing(num_classes: int) -> nn.Module:
    return Nothing(num_classes)


def dictionary(num_classes: int) -> nn.Module:
    return Wrapping(num_classes)


class Auxiliary(SmallNet):
    def forward(self, x):
        logits = super().forward(x)
        return (logits, logits) if self.training else logits


def auxiliary(num_classes: int) -> nn.Module:
    return Auxiliary(num_classes)


class Sharing(SmallNet):
    """Two layers with one weight, and a buffer that is a view of another."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.mix1, self.mix2 = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.mix2.weight = self.mix1.weight
        self.register_buffer("view", self.conv2.weight.detach()[:2])

    def forward(self, x):
        x = torch.relu(self.conv2(torch.relu(self.bn1(self.conv1(x))))).mean((2, 3))
        return self.fc(x + self.mix2(self.mix1(x)))


def sharing(num_classes: int) -> nn.Module:
    return Sharing(num_classes)


def normed(num_classes: int) -> nn.Module:
    return nn.Sequential(SmallNet(8), nn.BatchNorm1d(8), nn.Linear(8, num_classes))


def exits(num_classes: int) -> nn.Module:
    raise SystemExit("no weights")


def without_values(num_classes: int) -> nn.Module:
    with torch.device("meta"):
        return SmallNet(num_classes)


def frozen(num_classes: int) -> nn.Module:
    return SmallNet(num_classes).requires_grad_(False)


def compiled(num_classes: int) -> nn.Module:
    model: Any = torch.compile(SmallNet(num_classes), backend="eager")
    return cast(nn.Module, model)
