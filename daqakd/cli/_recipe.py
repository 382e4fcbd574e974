"""``--recipe NAME``: a published experiment's options, below a file's and the command line's."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from .._errors import InputError
from ..recipes import read
from ._teaching import PREFIX

FLAG, OWN = "--recipe", "recipe"


def recipe_of(arguments: Sequence[str], file: Mapping[str, Any]) -> str | None:
    """Return what ``--recipe`` names on a command line, or else in a file."""
    found = file.get(OWN)
    for word, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        if word == FLAG and following:
            found = following
        elif word.startswith(f"{FLAG}="):
            found = word.removeprefix(f"{FLAG}=")
    return None if found in (None, "None") else str(found)


def options_for(command: str, name: str) -> dict[str, Any]:
    """Return a recipe's options that a command has: ``train`` takes a teacher that there is.

    Raises:
        InputError: there is no such recipe.
    """
    options = read(name).options
    if command != "run":
        options = {k: v for k, v in options.items() if not k.startswith(PREFIX)}
    return options | {OWN: name}


def check_scale(scale: float) -> None:
    """Raise InputError for what shortens nothing."""
    if not 0 < scale <= 1:
        raise InputError(
            f"scale: expected more than 0 and at most 1, the fraction of the epochs to train, got"
            f" {scale}"
        )
