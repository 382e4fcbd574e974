"""CIFAR VGGs without large fully connected layers, as used by the low-bit distillation papers."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (64, 128, 256, 512, 512)
POOLED_GROUPS = 3  # the first groups end in 2 x 2 max pooling
LARGE = 64  # side of the images for which one more does, in pixels


def _group(in_channels: int, width: int, convolutions: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number in range(convolutions):
        layers += [
            nn.Conv2d(in_channels if number == 0 else width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


class LargeImagePool(nn.Module):
    """Max pooling for large images only; a module of its own, so that VGG's code has no branch."""

    def forward(self, x: Tensor, side: int) -> Tensor:
        """Return ``x``, pooled where the image had ``LARGE`` pixels."""
        return functional.max_pool2d(x, 2) if side == LARGE else x


class VGG(nn.Module):
    """Five groups of 3 x 3 convolutions, average pooling, one linear layer.

    Args:
        convolutions: per group; (1, 1, 1, 1, 1) is VGG-8, (2, 2, 2, 2, 2) is VGG-13.
        num_classes: outputs.
        widths: channels of the groups; those of the papers by default.

    The fourth group is pooled for inputs of 64 pixels only.
    """

    def __init__(
        self, convolutions: Sequence[int], num_classes: int, widths: Sequence[int] = WIDTHS
    ) -> None:
        super().__init__()
        channels = pairwise((3, *widths))
        self.groups = nn.ModuleList(
            _group(*pair, count) for pair, count in zip(channels, convolutions, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        self.large_pool = LargeImagePool()
        self.classifier = nn.Linear(widths[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.classifier.weight, 0, 0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, num_classes]`` for images ``[B, 3, H, W]``."""
        side = x.shape[-1]
        for number, group in enumerate(self.groups):
            x = group(x)
            if number < POOLED_GROUPS:
                x = self.pool(x)
            elif number == POOLED_GROUPS:
                x = self.large_pool(x, side)
        logits: Tensor = self.classifier(torch.mean(x, (2, 3)))
        return logits
