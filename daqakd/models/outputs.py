"""What a model returns: logits, or something that holds them."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError


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


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


@torch.no_grad()
def check_logits(model: nn.Module, images: Tensor, classes: int, name: str) -> None:
    """Raise InputError where a model gives no logits ``[B, classes]`` for ``[B, 3, H, W]``.

    It is tried in eval mode; its own mode is restored.
    """
    training = model.training
    try:
        with torch.random.fork_rng(devices=[]):
            logits = logits_of(model.eval()(images))
    except InputError:
        raise
    except Exception as error:  # whatever a user's forward raises
        raise InputError(
            f"model {name!r}: its forward pass fails on images of {tuple(images.shape[1:])}"
            f" ({_first_line(error)}); pass a --size that it takes, or mend it"
        ) from error
    finally:
        model.train(training)
    if logits.shape != (len(images), classes):
        raise InputError(
            f"model {name!r}: returned {tuple(logits.shape)} for {len(images)} images, expected"
            f" logits {(len(images), classes)}; pass a model for these classes"
        )
