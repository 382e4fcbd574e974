"""The one exception type that means: the input is wrong, and here is what to do about it.

What the system refuses stays an :class:`OSError`, which names the file or the stream.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from reprlib import Repr
from typing import Any

STDOUT = "standard output"
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 80


class InputError(ValueError):
    """Wrong input from the user: the message says what was seen, what was wanted, what to do."""


@contextmanager
def naming(what: str | Path) -> Iterator[None]:
    """Let errors of the system name what is read or written here: those of open files do not.

    Raises:
        OSError: the one of the block, with a name.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror or str(error), str(what)) from error


def seen(value: Any) -> str:
    """Return what an error quotes of a value: one line, and not all of what is large."""
    if isinstance(value, int) and value.bit_length() > 120:
        return f"an integer of {value.bit_length()} bits"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{type(value).__name__} {value.dtype} {list(value.shape)}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    text = re.sub(" at 0x[0-9a-f]+", "", _SHORT.repr(value))
    return type(value).__name__ if "\n" in text or text.endswith(" object>") else text


def first_line(error: BaseException) -> str:
    """Return what an error of another's code says, without what follows in further lines."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def suggest(name: str, known: list[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for a near miss of ``name`` among ``known``, else nothing."""
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def unknown(kind: str, name: Any, known: list[str]) -> InputError:
    """Build the error for a ``name`` that is not one of the ``known`` ``kind``."""
    near = suggest(name, known) if isinstance(name, str) else ""
    return InputError(f"unknown {kind} {seen(name)}.{near} Known: {', '.join(sorted(known))}")
