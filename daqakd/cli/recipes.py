"""``recipes``: the published experiments that ``--recipe`` runs."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from .. import _console
from ..recipes import Recipe, names, read
from ._options import OptionalName


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``recipes``."""

    name: Annotated[OptionalName, tyro.conf.Positional] = None
    """Show one, with its options, and what was not known of the experiment."""


def run(options: Options) -> None:
    """List the recipes, or show one."""
    if options.name is not None:
        _console.say(_details(read(options.name)))
        return
    found = [read(name) for name in names()]
    width = max(map(len, names()))
    _console.say(f"{'recipe':{width}}  published top-1, % (by)")
    for recipe in found:
        _console.say(f"{recipe.name:{width}}  {recipe.figure}")
    _console.say("daqakd run --recipe NAME runs one; --scale 0.01 shortens its schedule")


def _details(recipe: Recipe) -> str:
    lines = [f"{recipe.name}: published top-1, %: {recipe.figure}", f"source: {recipe.source}"]
    lines += [f"not known: {text}" for text in recipe.unknown]
    return "\n".join([*lines, *(f"  {_option(*one)}" for one in recipe.options.items())])


def _option(name: str, value: object) -> str:
    """Return an option as a command line has it."""
    dashed = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{dashed}" if value else f"--no-{dashed}"
    return f"--{dashed} {' '.join(map(str, value)) if isinstance(value, list) else value}"
