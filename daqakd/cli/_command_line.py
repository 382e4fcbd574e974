"""The command line that options are of."""

import shlex
from typing import Any

from ._job import JobOptions, options_to_keep


def command_line(command: str, options: JobOptions) -> str:
    """Return the command with these options, without those at their defaults.

    Where results lie and which processes make them is not told.
    """
    values, defaults = options_to_keep(options)
    words = ["daqakd", command, values.pop("data")]
    for name, value in values.items():
        if name not in defaults or value != defaults[name]:
            words += _words(f"--{name.replace('_', '-')}", value)
    return shlex.join(words)


def _words(flag: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [flag if value else flag.replace("--", "--no-", 1)]
    if isinstance(value, tuple):
        return [flag, *map(str, value)]
    return [flag, str(value)]
