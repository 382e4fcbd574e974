"""Find the command, parse its options, run it, turn bad input into one paragraph.

Only the chosen command's file is imported, so that the list of commands answers at once.
"""

import importlib
import sys
from collections.abc import Sequence

from .._errors import InputError, unknown

COMMANDS = {
    "doctor": "Show versions and which backends can run, and why the others cannot.",
    "data": "Decode a data set once, to files that are mapped: daqakd data prepare DATA --out DIR.",
    "teach": "Train the full-precision teacher.",
    "rank": "Rank augmentation strategies from the teacher alone.",
    "search": "Rank random compositions of two operations by successive halving.",
    "train": "Train the low-bit student with the teacher beside it.",
    "eval": "Measure the test accuracy of a run's student, or of a teacher on DATA.",
    "run": "Do it all: teach (or take --teacher), rank, train with the winner, evaluate, report.",
    "report": "Write one self-contained HTML page about finished runs.",
    "bench": "Time the ops against eager PyTorch, torch.compile and PyTorch's own op; no data.",
}
DESCRIPTION = """\
usage: daqakd COMMAND [OPTIONS]

Rank data augmentations from the teacher alone, then train the low-bit student with the winner.
Start with: daqakd run digits --out runs/digits

commands (daqakd COMMAND --help lists the options):
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0 on success, 2 for bad input, 130 when interrupted."""
    name, *rest = [*(sys.argv[1:] if arguments is None else arguments)] or ["--help"]
    if name in ("-h", "--help"):
        print(DESCRIPTION + "\n".join(f"  {n:8}{text}" for n, text in COMMANDS.items()))
        return 0
    try:
        _run(name, rest)
    except InputError as error:
        print(f"daqakd: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("daqakd: interrupted; the same command continues", file=sys.stderr)
        return 130
    return 0


def _run(name: str, arguments: Sequence[str]) -> None:
    if name not in COMMANDS:
        raise unknown("command", name, list(COMMANDS))
    import tyro

    command = importlib.import_module(f".{name}", __package__)
    prog, description = f"daqakd {name}", COMMANDS[name]
    command.run(tyro.cli(command.Options, prog=prog, description=description, args=arguments))


if __name__ == "__main__":
    raise SystemExit(main())
