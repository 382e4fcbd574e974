"""Options from a TOML file: the command line goes over the file, the file over defaults.

What a run directory's ``config.toml`` holds is such a file as it is.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, field, fields, is_dataclass, make_dataclass
from itertools import zip_longest
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro

from .._config import describe_hint, fits
from .._errors import InputError, seen, unknown
from .._files import read_bytes

FLAG, OWN = "--config", "config"
HELP = "Options from a file, such as a run's config.toml; those of this line go over it."
SHOWN = tyro.conf.arg(metavar="FILE.toml", help=HELP, help_behavior_hint="")
ConfigFile = Annotated[Path | None, SHOWN]
Options = TypeVar("Options")


def with_config(options: type[Any]) -> Any:
    """Return a command's options and ``--config``, which :func:`file_of` has read before them."""
    shown = [("config", ConfigFile, field(default=None))]
    return make_dataclass("Options", shown, bases=(options,), frozen=True, kw_only=True)


def file_of(arguments: Sequence[str]) -> Path | None:
    """Return what ``--config`` names on a command line."""
    found = None
    for word, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        if word == FLAG and following:
            found = Path(following)
        elif word.startswith(f"{FLAG}="):
            found = Path(word.removeprefix(f"{FLAG}="))
    return found


def read_values(path: Path) -> dict[str, Any]:
    """Read a TOML file that a person may have edited, its hash included.

    Raises:
        InputError: it is no TOML.
        OSError: it cannot be read.
    """
    try:
        return tomllib.loads(read_bytes(path).decode())
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: expected TOML ({reason}); correct it") from error


def values_for(command: str, commands: Sequence[str], path: Path) -> dict[str, Any]:
    """Return a file's options of a command: those before all sections, below those of its own.

    Raises:
        InputError: a section is of no command, or nothing in the file is for this one.
    """
    values = read_values(path)
    sections = {k: v for k, v in values.items() if isinstance(v, dict)}
    for name in sections:
        if name not in commands:
            raise InputError(f"{path}: {unknown('section', name, list(commands))}")
    plain = {k: v for k, v in values.items() if k not in sections}
    if sections and not plain and command not in sections:
        raise InputError(
            f"{path}: has options of {', '.join(sections)}, none of {command}; rename the section,"
            " or leave out its heading"
        )
    return plain | sections.get(command, {})


def options_of(kind: type[Options], values: Mapping[str, Any], source: str | Path) -> Options:
    """Return a command's options with ``values`` by name; what has no default may be missing.

    Raises:
        InputError: naming ``source``, for an unknown name or a value of another kind.
    """
    left = {name.replace("-", "_"): value for name, value in values.items()}
    known: list[str] = []
    try:
        made = _made(kind, left, known)
        for name in left:
            raise unknown("option", name, known)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    return made


def _made(kind: type[Options], left: dict[str, Any], known: list[str]) -> Options:
    """Return an instance from what is ``left``, which loses what it takes; own fields first."""
    found: dict[str, Any] = {}
    hints, shown = get_type_hints(kind), _shown(kind)
    groups = [name for name in shown if is_dataclass(hints[name])]
    known += [name for name in shown if name not in groups]
    for f in fields(kind):  # type: ignore[arg-type]
        if f.name in left and f.name in shown and f.name not in groups:
            found[f.name] = _value(f.name, left.pop(f.name), hints[f.name])
        elif f.default is MISSING and f.name not in groups:
            found[f.name] = tyro.MISSING
    return kind(**found, **{name: _made(hints[name], left, known) for name in groups})


def _shown(kind: type) -> list[str]:
    """Return the fields that the command line shows."""
    hints = get_type_hints(kind, include_extras=True)
    marks = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    shown = [f.name for f in fields(kind) if tyro.conf.Suppress not in marks[f.name]]
    return [name for name in shown if name != OWN]


def _value(name: str, value: Any, hint: Any) -> Any:
    """Return an option's value from TOML's."""
    made = _as(hint, value)
    if not fits(made, hint):
        raise InputError(f"{name}: expected {describe_hint(hint)}, got {seen(value)}")
    return made


def _as(hint: Any, value: Any) -> Any:
    """Return what TOML cannot say in the type that an option wants it in."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if type(None) in kinds and value in ("None", []):  # as config.toml says it
        return None
    if isinstance(value, list):
        inner = [get_args(kind) for kind in kinds if get_origin(kind) is tuple]
        return tuple(_as(inner[0][0], one) for one in value) if inner else value
    if isinstance(value, str) and Path in kinds:
        return Path(value)
    if type(value) is int and float in kinds and int not in kinds:
        return float(value)
    return value
