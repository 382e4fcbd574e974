"""What a model returns: logits, or something that holds them."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError, first_line


def logits_of(output: Any) -> Tensor:
    """Return the logits in a model's output: itself, its ``logits``, or its first tensor.

    Raises:
        InputError: there is none.
    """
    if isinstance(output, Tensor):
        return output
    named = output.get("logits") if isinstance(output, Mapping) else None
    named = getattr(output, "logits", None) if named is None else named
    if isinstance(named, Tensor):
        return named
    parts = output.values() if isinstance(output, Mapping) else output
    first = [p for p in parts if isinstance(p, Tensor)] if isinstance(parts, Iterable) else []
    if not first:
        raise InputError(
            f"model: returned a {type(output).__name__} without a tensor; expected logits [B, C],"
            " or a tuple, a dictionary or an object that holds them as .logits or first"
        )
    return first[0]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode; afterwards each of its modules has its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def forward_pass(name: str, images: Tensor) -> Iterator[None]:
    """Say that a model's own code fails on images ``[B, C, H, W]``; ``name`` is the model's."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # whatever a user's forward raises
        kind = f"{tuple(images.shape[1:])}, {images.dtype} on {images.device}"
        raise InputError(
            f"{name}: its forward pass fails on images of {kind} ({first_line(error)}); pass a"
            " size, mean and std that it takes, or a model for these images"
        ) from error


@torch.no_grad()
def check_logits(model: nn.Module, images: Tensor, classes: int, name: str) -> None:
    """Raise InputError where a model gives no logits ``[B, classes]`` for ``[B, 3, H, W]``.

    It is tried in eval mode; ``name`` is for errors.
    """
    with torch.random.fork_rng(devices=[]), evaluating(model), forward_pass(name, images):
        logits = logits_of(model(images))
    if logits.shape != (len(images), classes):
        raise InputError(
            f"{name}: returned {tuple(logits.shape)} for {len(images)} images, expected logits"
            f" {(len(images), classes)}; pass a model for these classes"
        )
