"""Checks of what callers hand over besides tensors and configurations; errors name the argument."""

from collections.abc import Callable
from importlib import import_module
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ._errors import InputError, first_line, seen

LARGEST_SIDE = 2**15  # of images, in pixels


def imported(what: str, name: str) -> Callable[..., Any]:
    """Return the function that ``package.module:function`` names; ``what`` is for errors.

    Raises:
        InputError: there is none.
    """
    module, _, attribute = name.partition(":")
    try:
        function = getattr(import_module(module), attribute)
    except (Exception, SystemExit) as error:  # whatever a user's module raises; a script may exit
        raise InputError(
            f"{what} {name!r}: cannot be imported ({first_line(error)}); expected"
            " package.module:function, importable from here"
        ) from error
    if not callable(function):
        raise InputError(f"{what} {name!r}: {attribute} is not callable; name a function")
    found: Callable[..., Any] = function
    return found


def check_integer(name: str, value: Any, least: int, most: int) -> None:
    """Raise InputError for what is no integer from ``least`` to ``most``."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InputError(f"{name}: expected an integer from {least} to {most}, got {seen(value)}")


def check_side(name: str, value: Any) -> None:
    """Raise InputError for what is no side of images in pixels."""
    check_integer(name, value, 1, LARGEST_SIDE)


def check_rate(name: str, value: Any) -> None:
    """Raise InputError for what is no finite number from 0 on, nor a tensor of one."""
    if isinstance(value, Tensor) and value.numel() == 1:
        return
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not 0 <= value < float("inf"):
        raise InputError(f"{name}: expected a finite number from 0 on, got {seen(value)}")


def check_flag(name: str, value: Any) -> None:
    """Raise InputError for what is neither True nor False."""
    if not isinstance(value, bool):
        raise InputError(f"{name}: expected True or False, got {seen(value)}")


def check_module(name: str, value: Any) -> None:
    """Raise InputError for what is no module."""
    if not isinstance(value, nn.Module):
        raise InputError(
            f"{name}: expected a torch.nn.Module, got {seen(value)}; pass a model, not its name,"
            " class, function or state_dict"
        )


def device_of_model(name: str, model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter; the CPU without any.

    Raises:
        InputError: it is the meta device.
    """
    first = next(model.parameters(), None)
    if first is not None and first.is_meta:
        raise InputError(f"{name}: is on the meta device, so it has no weights; load some first")
    return torch.device("cpu") if first is None else first.device


def device_of(device: Any) -> torch.device:
    """Return a device by its name; None for the CPU.

    Raises:
        InputError: there is no such device here.
    """
    try:
        found = torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError) as error:
        raise InputError(
            f"device: expected a device such as 'cpu' or 'cuda', got {seen(device)}"
        ) from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise InputError("device: cuda was asked for, but torch sees no GPU; see daqakd doctor")
    return found


def path_of(name: str, value: Any) -> Path:
    """Return a path.

    Raises:
        InputError: another type, nothing, or a character that no file's name has.
    """
    if not isinstance(value, str | Path) or "\0" in str(value) or not str(value):
        raise InputError(f"{name}: expected a path, got {seen(value)}; name a file or a directory")
    return Path(value)
