"""Accuracy on clean images."""

import torch
from torch import Tensor, nn

from ..augment import InputSpec, clean_inputs
from ..data import Images
from ..models import logits_of

BATCH = 500


@torch.no_grad()
def accuracy(
    model: nn.Module,
    images: Images,
    inputs: InputSpec,
    device: torch.device | str = "cpu",
    chosen: Tensor | None = None,
) -> float:
    """Return the fraction of images classified right, in eval mode, reading back once.

    Args:
        model: ``[B, 3, H, W] -> [B, C]`` on ``device``; its training mode is restored.
        images: the set.
        inputs: what the model was trained with: the size and normalisation that it sees.
        device: where to compute.
        chosen: optional indices into the set.
    """
    index = torch.arange(len(images)) if chosen is None else chosen
    training = model.training
    model.eval()
    right = torch.zeros((), dtype=torch.int64, device=device)
    for part in index.split(BATCH):
        logits = logits_of(model(clean_inputs(images.pixels[part], inputs, device)))
        right += (logits.argmax(1) == images.labels[part].to(device)).sum()
    model.train(training)
    return right.item() / max(len(index), 1)
