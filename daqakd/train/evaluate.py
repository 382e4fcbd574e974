"""Accuracy on clean images."""

import torch
from torch import Tensor, nn

from .. import _ranks
from .._arguments import check_module, device_of
from .._errors import InputError, seen
from ..augment import InputSpec, clean_inputs
from ..data import Images
from ..models import evaluating, forward_pass, logits_of

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

    Of several ranks each classifies its share.

    Args:
        model: ``[B, 3, H, W] -> [B, C]`` on ``device``; its training mode is restored.
        images: the set.
        inputs: what the model was trained with: the size and normalisation that it sees.
        device: where to compute.
        chosen: optional indices into the set.

    Raises:
        InputError: an argument of another kind, no such device, or a model that fails.
    """
    check_module("model", model)
    place, index = device_of(device), _index(images, inputs, chosen)
    right = torch.zeros((), dtype=torch.int64, device=place)
    with evaluating(model):
        for part in _ranks.share(index).split(BATCH):
            shown = clean_inputs(images.pixels[part], inputs, place)
            with forward_pass("model", shown):
                logits = logits_of(model(shown))
            right += (logits.argmax(1) == images.labels[part].to(place)).sum()
    return _ranks.total(right, len(index)).item() / max(len(index), 1)


def _index(images: Images, inputs: InputSpec, chosen: Tensor | None) -> Tensor:
    """Return the indices of the chosen images, the arguments checked."""
    if not isinstance(images, Images):
        raise InputError(f"images: expected a data set's train or test, got {seen(images)}")
    if not isinstance(inputs, InputSpec):
        raise InputError(f"inputs: expected a data set's inputs, got {seen(inputs)}")
    if chosen is None:
        return torch.arange(len(images))
    fits = isinstance(chosen, Tensor) and chosen.dtype == torch.int64 and chosen.dim() == 1
    if not fits or (len(chosen) and not 0 <= chosen.min() <= chosen.max() < len(images)):
        raise InputError(
            f"chosen: expected int64 [n] of indices below {len(images)}, got {seen(chosen)}"
        )
    return chosen
