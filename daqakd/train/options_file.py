"""The run directory's ``config.toml``: the options that each command was begun with."""

import json
import tomllib
from pathlib import Path
from typing import Any

from .._errors import InputError
from .._files import write_text


def to_toml(values: dict[str, Any]) -> str:
    """Return TOML text of a flat dictionary with one level of sections; None is left out."""
    lines, sections = [], []
    for key, value in values.items():
        if isinstance(value, dict):
            sections.append(f"\n[{key}]\n{to_toml(value)}")
        elif value is not None:
            plain = list(value) if isinstance(value, tuple) else value
            lines.append(f"{key} = {json.dumps(plain)}\n")
    return "".join(lines + sections)


def keep_options(
    path: Path, command: str, values: dict[str, Any], defaults: dict[str, Any] | None = None
) -> None:
    """Write a command's options to ``config.toml``, or require those written there to be the same.

    A run that was begun before an option existed had that option's value in ``defaults``.

    Raises:
        InputError: the run directory belongs to another configuration.
    """
    written = read_options(path) if path.exists() else {}
    new = tomllib.loads(to_toml(values))
    if command not in written:
        write_text(path, to_toml({**written, command: new}))
        return
    old = {**tomllib.loads(to_toml(defaults or {})), **written[command]}
    changed = [k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)]
    if changed:
        what = ", ".join(f"{k} ({old.get(k)} there, {new.get(k)} here)" for k in changed[:5])
        raise InputError(
            f"{path.parent}: holds a {command} run of another configuration: {what}. Use another"
            " --out, or the same options to continue that run"
        )


def read_options(path: Path) -> dict[str, Any]:
    """Read a ``config.toml``."""
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); is this a run directory?") from error
