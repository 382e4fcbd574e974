"""Accuracy on clean images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..augment import ResizedCrop, clean_inputs
from ..data import Images

BATCH = 500


@torch.no_grad()
def accuracy(
    model: nn.Module,
    images: Images,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str = "cpu",
    chosen: Tensor | None = None,
    pipeline: ResizedCrop | None = None,
    semantics: str = "pil",
) -> float:
    """Return the share of images classified right, in eval mode, reading back once.

    Args:
        model: ``[B, 3, H, W] -> [B, C]`` on ``device``; its training mode is restored.
        images: the set.
        mean: per-channel mean of inputs in [0, 1].
        std: per-channel standard deviation.
        device: where to compute.
        chosen: optional indices into the set.
        pipeline: what the model was trained with: its size is what the model sees, as
            :func:`daqakd.augment.clean` says.
        semantics: ``"pil"`` or ``"torchvision"``, whose resizing to equal.
    """
    index = torch.arange(len(images)) if chosen is None else chosen
    training = model.training
    model.eval()
    right = torch.zeros((), dtype=torch.int64, device=device)
    for part in index.split(BATCH):
        pixels = images.pixels[part]
        logits = model(clean_inputs(pixels, mean, std, device, pipeline, semantics))
        right += (logits.argmax(1) == images.labels[part].to(device)).sum()
    model.train(training)
    return right.item() / max(len(index), 1)
