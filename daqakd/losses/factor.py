"""FT: factors of maps, by a paraphraser and a translator (Kim et al., NeurIPS 2018)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, mse_loss

from ..augment import Batch
from .base import DistillationLoss, Maps, Setup, Where, added, pooled_alike, unit_rows
from .checks import check_normalisable, check_number, check_pairs

SLOPE = 0.1  # of the leaky ReLUs


class FT(DistillationLoss):
    """Mean absolute difference of the models' factors [FT, eq. 3], as maps of attention.

    A paraphraser, trained before the student by :meth:`pretrain_loss` and frozen then, makes the
    teacher's factor of its map, with ``ratio`` times as many channels; a translator, trained with
    the student, makes the student's. What is compared is the mean of squares over channels
    ``[B, H W]``, of length 1. Summed over the taps; the last map by default. Of two sizes the
    larger is pooled.

    Args:
        taps: maps ``[B, C, H, W]``; None for a named model's last.
        ratio: channels of a factor per channel of the teacher's map.
    """

    place: ClassVar[Where] = "before_last"
    settings = ("ratio",)
    pretrain_epochs: ClassVar[int] = 30
    pretrain_lr: ClassVar[float] = 0.01  # of SGD
    encoders: nn.ModuleList
    decoders: nn.ModuleList
    translators: nn.ModuleList

    def __init__(self, *, taps: Sequence[str] | None = None, ratio: float = 0.5) -> None:
        super().__init__(taps=taps)
        check_number("ratio", ratio, most=1.0)
        self.ratio = ratio

    def prepare(self, setup: Setup) -> None:
        """Make paraphrasers and translators."""
        check_pairs(self, setup, 4)
        makers = _encoder, _decoder, _translator
        layers: list[list[nn.Module]] = [[], [], []]
        for s, t in zip(setup.student, setup.teacher, strict=True):
            factors = max(1, int(self.ratio * t.shape[1]))
            for found, make, x in zip(layers, makers, (t, t, s), strict=True):
                found.append(make(x.shape[1], factors).to(x))
        self.encoders, self.decoders, self.translators = map(nn.ModuleList, layers)

    def pretrain_loss(self, teacher: Maps) -> Tensor:
        """Return the mean squared error of the teacher's maps, paraphrased and restored."""
        losses = []
        for encoder, decoder, t in zip(self.encoders, self.decoders, teacher, strict=True):
            losses.append(mse_loss(decoder(encoder(t)), t))
        return added(losses)

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Return the paraphraser's, for :meth:`pretrain_loss`."""
        return [*self.encoders.parameters(), *self.decoders.parameters()]

    def trained_parameters(self) -> list[nn.Parameter]:
        """Return the translator's, which are trained with the student."""
        return [*self.translators.parameters()]

    def forward(self, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
        """Return the loss of a batch, ``[]``."""
        losses = []
        for encoder, translator, *maps in zip(
            self.encoders, self.translators, student, teacher, strict=True
        ):
            check_normalisable(self, maps[0])
            with torch.no_grad():
                wanted = encoder(maps[1])
            s, t = pooled_alike(translator(maps[0]), wanted)
            losses.append(l1_loss(_attention(s), _attention(t)))
        return added(losses)


def _attention(factor: Tensor) -> Tensor:
    return unit_rows((factor * factor).mean(1).flatten(1))


def _convolution(channels: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, 3, padding=1), nn.LeakyReLU(SLOPE)]


def _encoder(channels: int, factors: int) -> nn.Module:
    widths = (channels, channels), (channels, factors), (factors, factors)
    return nn.Sequential(*(layer for pair in widths for layer in _convolution(*pair)))


def _decoder(channels: int, factors: int) -> nn.Module:
    widths = (factors, factors), (factors, channels), (channels, channels)
    layers: list[nn.Module] = []
    for pair in widths:
        layers += [nn.ConvTranspose2d(*pair, 3, padding=1), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers)


def _translator(channels: int, factors: int) -> nn.Module:
    widths = (channels, channels), (channels, factors), (factors, factors)
    layers: list[nn.Module] = []
    for pair in widths:
        convolution, activation = _convolution(*pair)
        layers += [convolution, nn.BatchNorm2d(pair[1]), activation]
    return nn.Sequential(*layers)
