"""Bad input: what every refusal looks like, in the package and on the command line."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from daqakd import InputError
from daqakd.cli.main import main

Row = tuple[str, Callable[[], Any]]  # what the error says, and the call

INTERNAL = re.compile(
    r"Traceback|csrc/|\.(py|cpp|h|cu)\b:?\d*|daqakd::|torch\.ops|at 0x[0-9a-f]|object has no attr"
    r"|<class '|positional argument|NotImplemented"
)
# the argument, file, layer, strategy or model that is wrong comes first
ARGUMENT = re.compile(
    r"unknown [\w ]+|[\w./\[\]<>~-]+( \(.+\))?: |(strategy|composition|model) '|the CMI state"
    r"|.+\.\w+: "
)
ADVICE = re.compile(
    r"expected |Known: |Known data|Layers: |need|has no|;|is for |Pass |Use |Run |, than |Try "
)


def check_sentence(text: str) -> None:
    """Require one sentence that names the argument, and what was wanted or what to do."""
    assert "\n" not in text, text
    assert not INTERNAL.search(text), text
    assert ARGUMENT.match(text), f"names no argument: {text}"
    assert ADVICE.search(text), f"says not what to do: {text}"


def refused(call: Callable[[], Any], message: str) -> None:
    """Require that a call is refused in one sentence that matches ``message``."""
    with pytest.raises(InputError, match=message) as caught:
        call()
    check_sentence(str(caught.value))


def fails(arguments: list[str], message: str, capsys: Any) -> None:
    """Require that a command ends with code 2 and one sentence that matches ``message``."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("daqakd: error: ")
    assert error.count("\n") == 1
    check_sentence(error.removeprefix("daqakd: error: ").removesuffix("\n"))
    assert re.search(message, error), error


def misspelt(arguments: list[str], message: str, capsys: Any) -> None:
    """Require that options of another kind are refused with code 2, by name, without a trace."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    shown = " ".join("".join(capsys.readouterr()).replace("│", " ").split())
    assert not re.search(r"Traceback|\.py\b", shown), shown
    assert re.search(message, shown), shown


__all__ = ["Row", "check_sentence", "fails", "misspelt", "refused"]
