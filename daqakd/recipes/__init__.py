"""The papers' experiments, one file each: options of ``run``, their source, what was not known."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .._errors import InputError, suggest, unknown

FOLDER = Path(__file__).parent
BASES = FOLDER / "base"  # what experiments on one model share
TABLES = FOLDER / "tables"


@dataclass(frozen=True)
class Recipe:
    """An experiment.

    ``options`` are those of ``daqakd run`` by name, ``source`` says where they are from,
    ``unknown`` what was not told, and ``published`` is the published top-1 accuracy in percent.
    """

    name: str
    options: dict[str, Any]
    source: str
    unknown: tuple[str, ...]
    published: float | None = None
    published_by: str = ""

    @property
    def figure(self) -> str:
        """The published accuracy, with whose it is."""
        return "-" if self.published is None else f"{self.published:.2f} ({self.published_by})"


@cache
def names() -> tuple[str, ...]:
    """Return the names of all recipes."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def read(name: str) -> Recipe:
    """Return a recipe, what it shares with others included.

    Raises:
        InputError: there is none of this name.
    """
    if name not in names():
        raise InputError(
            f"recipe: unknown {name!r}, expected one that daqakd recipes lists."
            f"{suggest(name, [*names()])}"
        )
    own = tomllib.loads((FOLDER / f"{name}.toml").read_text())
    base = tomllib.loads((BASES / f"{own['base']}.toml").read_text())
    told = base | own
    return Recipe(
        name=name,
        options=base["options"] | own["options"],
        source=told["source"],
        unknown=tuple(told["unknown"]),
        published=told.get("published"),
        published_by=told.get("published_by", ""),
    )


BEST = "best"  # the strategy that a ranking puts first


@dataclass(frozen=True)
class Table:
    """A table of a paper: recipes down, each with these strategies; with its own if there are none.

    ``best`` among the strategies stands for the winner of a ranking by the recipe's teacher.
    """

    name: str
    title: str
    recipes: tuple[str, ...]
    strategies: tuple[str, ...] = ()


@cache
def table_names() -> tuple[str, ...]:
    """Return the names of all tables."""
    return tuple(sorted(path.stem for path in TABLES.glob("*.toml")))


def read_table(name: str) -> Table:
    """Return a table.

    Raises:
        InputError: there is none of this name.
    """
    if name not in table_names():
        raise unknown("table", name, [*table_names()])
    told = tomllib.loads((TABLES / f"{name}.toml").read_text())
    lists = {key: tuple(told.get(key, ())) for key in ("recipes", "strategies")}
    return Table(name, told["title"], **lists)


__all__ = ["BEST", "Recipe", "Table", "names", "read", "read_table", "table_names"]
