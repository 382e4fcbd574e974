"""The ``daqakd`` command: parse the options, run the verb, turn bad input into one paragraph."""

import sys
from collections.abc import Sequence
from typing import Any

import tyro

from ._errors import InputError
from .options import Verb
from .verbs import ACTIONS

DESCRIPTION = (
    "Rank data augmentations from the teacher alone, then train the low-bit student with the"
    " winner.\n\nStart with: daqakd run digits --out runs/digits"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0 on success, 2 for bad input, 130 when interrupted."""
    verb: Any = tyro.cli(
        Verb,
        prog="daqakd",
        description=DESCRIPTION,
        args=arguments,
    )
    try:
        ACTIONS[type(verb)](verb)
    except InputError as error:
        print(f"daqakd: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("daqakd: interrupted; the same command continues", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
