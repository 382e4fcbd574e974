"""The run directory's ``config.toml``: the options that each command was begun with."""

import tomllib
from pathlib import Path
from typing import Any

import tomli_w

from .._errors import InputError
from .._files import damaged, read_toml, write_toml


def to_toml(values: dict[str, Any]) -> str:
    """Return TOML text of a dictionary with one level of sections; None is left out."""
    return tomli_w.dumps(_plain(values))


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    nested = {k: _plain(v) if isinstance(v, dict) else v for k, v in values.items()}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in nested.items() if v is not None}


def check_options(
    path: Path, command: str, values: dict[str, Any], defaults: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return what ``config.toml`` holds, after requiring that a command's options are the same.

    A run that was begun before an option existed had that option's value in ``defaults``.

    Raises:
        InputError: the run directory belongs to another configuration, or the file is damaged.
    """
    written = read_options(path) if path.exists() else {}
    if command not in written:
        return written
    new = tomllib.loads(to_toml(values))
    old = {**tomllib.loads(to_toml(defaults or {})), **written[command]}
    changed = [k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)]
    if changed:
        what = ", ".join(f"{k} ({old.get(k)} there, {new.get(k)} here)" for k in changed[:5])
        raise InputError(
            f"{path.parent}: holds a {command} run of another configuration: {what}. Use another"
            " --out, or the same options to continue that run"
        )
    return written


def keep_options(
    path: Path, command: str, values: dict[str, Any], defaults: dict[str, Any] | None = None
) -> None:
    """Write a command's options to ``config.toml``; errors as for :func:`check_options`."""
    written = check_options(path, command, values, defaults)
    if command not in written:
        write_toml(path, to_toml({**written, command: values}))


def read_options(path: Path) -> dict[str, Any]:
    """Read a ``config.toml``."""
    try:
        return tomllib.loads(read_toml(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}); is this a run directory?") from error
    except tomllib.TOMLDecodeError as error:
        raise damaged(path, error) from error
