"""Accuracy on clean images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..data import Images

BATCH = 500


def normalised(
    pixels: Tensor, mean: Sequence[float], std: Sequence[float], device: torch.device | str
) -> Tensor:
    """Return float32 inputs for ``uint8 [B, 3, H, W]`` pixels, channels last."""
    centre = torch.tensor(mean, device=device).view(-1, 1, 1)
    scale = torch.tensor(std, device=device).view(-1, 1, 1)
    images = (pixels.to(device).float() / 255 - centre) / scale
    return images.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def accuracy(
    model: nn.Module,
    images: Images,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str = "cpu",
    chosen: Tensor | None = None,
) -> float:
    """Return the share of images classified right, in eval mode, reading back once.

    Args:
        model: ``[B, 3, H, W] -> [B, C]`` on ``device``; its training mode is restored.
        images: the set.
        mean: per-channel mean of inputs in [0, 1].
        std: per-channel standard deviation.
        device: where to compute.
        chosen: optional indices into the set.
    """
    index = torch.arange(len(images)) if chosen is None else chosen
    training = model.training
    model.eval()
    right = torch.zeros((), dtype=torch.int64, device=device)
    for part in index.split(BATCH):
        logits = model(normalised(images.pixels[part], mean, std, device))
        right += (logits.argmax(1) == images.labels[part].to(device)).sum()
    model.train(training)
    return right.item() / max(len(index), 1)
