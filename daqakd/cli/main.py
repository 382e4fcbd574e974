"""Find the command, parse its options, run it, turn bad input into one paragraph.

Only the chosen command's file is imported, so that the list of commands answers at once.
"""

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from .. import _ranks
from .._errors import STDOUT, InputError, naming, unknown

COMMANDS = {
    "doctor": "Show versions and which backends can run, and why the others cannot.",
    "data": "Decode a data set once, to files that are mapped: daqakd data prepare DATA --out DIR.",
    "teach": "Train the full-precision teacher.",
    "rank": "Rank augmentation strategies from the teacher alone.",
    "search": "Rank random compositions of two operations by successive halving.",
    "train": "Train the low-bit student with the teacher beside it.",
    "eval": "Measure the test accuracy of a run's student, or of a teacher on DATA.",
    "export": "Write a run's student for other runtimes: ONNX, packed codes, torch.export.",
    "recipes": "List the published experiments that run --recipe NAME repeats, or show one.",
    "run": "Do it all: teach (or take --teacher), rank, train with the winner, evaluate, report.",
    "sweep": "Run a grid of runs in any number of workers; table, tests over seeds, page.",
    "study": "Rank, train every strategy, and say how well the ranking predicted the students.",
    "select": "Rank, then race the best by short trainings within a budget, and name the winner.",
    "reproduce": "Repeat a table of the papers by its recipes, beside the published figures.",
    "report": "Write one self-contained HTML page about finished runs.",
    "bench": "Time the ops beside PyTorch's and other libraries'; then: bench compare, bench plot.",
    "bench compare": "Put two files of bench beside each other: ratios, means, missing rows.",
    "bench plot": "Draw a file of bench: bars by op and size, and the roofline.",
}
WITH_RECIPES = ("train", "run")
SHARED = ("teach", "rank", "search", "train", "run")  # by the ranks that torchrun starts
NOT_WRITABLE = "change its permissions, or use another --out"
ADVICE = {
    errno.ENOSPC: "free some space and run the same command again",
    errno.EDQUOT: "free some of your quota and run the same command again",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f) and run the same command again",
    errno.EACCES: NOT_WRITABLE,
    errno.EPERM: NOT_WRITABLE,
    errno.EROFS: "use another --out",
    errno.ENOENT: "it cannot be opened or made; check the path",
    errno.ENOTDIR: "a part of the path is a file; name another",
    errno.EISDIR: "it is a directory; name a file",
    errno.ENAMETOOLONG: "choose a shorter name",
}
DESCRIPTION = """\
usage: daqakd COMMAND [OPTIONS]

Rank data augmentations from the teacher alone, then train the low-bit student with the winner.
Start with: daqakd run digits --out runs/digits

commands (daqakd COMMAND --help lists the options, --config FILE.toml takes them from a file):
"""


TOUR = """\
DAQAKD ranks data augmentations from the teacher alone, then
trains the low-bit student with the winner.

  daqakd run digits --out runs/digits   all of it in minutes
  daqakd rank DATA --teacher T.pth      which augmentation?
  daqakd train DATA --teacher T.pth -w 2 -a 2 --out RUN
  daqakd eval RUN                       on the test images
  daqakd doctor                         what is native here

DATA: cifar10, cifar100, digits, tiny-imagenet or a folder.
daqakd --help lists all commands, daqakd COMMAND --help the
options of one. From Python: help(daqakd.quantize)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0 on success, 2 for bad input, 130 when interrupted."""
    code = _code_of(arguments)
    _ranks.leave(code)
    return code


def _code_of(arguments: Sequence[str] | None) -> int:
    _open_closed()
    name, *rest = [*(sys.argv[1:] if arguments is None else arguments)] or [""]
    try:
        try:
            _run(name, rest)
        finally:
            _flush()  # here, and not at exit, a full disk is met as an error
    except InputError as error:
        print(f"{_own_name()}: error: {one_line(str(error))}", file=sys.stderr)
        return 2
    except OSError as error:
        _drop_unwritten()
        if error.errno == errno.EPIPE and error.filename == STDOUT:  # its reader has seen enough
            return 1
        print(f"{_own_name()}: error: {_explain(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("daqakd: interrupted; the same command continues", file=sys.stderr)
        return 130
    return 0


def _own_name() -> str:
    rank, count = _ranks.launched()
    return "daqakd" if count == 1 else f"daqakd: rank {rank}"


def _open_closed() -> None:
    """Write to nowhere what would go to a stream that was closed before (``>&-``)."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


def one_line(text: str) -> str:
    """Return a message as one paragraph, whatever it quotes."""
    return " ".join(text.split("\n"))


def _explain(error: OSError) -> str:
    """Say which file the system refused, why, and what helps."""
    advice = ADVICE.get(error.errno or 0, "check the path, then run the same command again")
    reason = error.strerror or f"{type(error).__name__}: {one_line(str(error))}"
    place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    return f"{place}{reason}; {advice}"


def _flush() -> None:
    if sys.stdout is not None:  # None where it is closed
        with naming(STDOUT):
            sys.stdout.flush()


def _drop_unwritten() -> None:
    """Drop what stdout refuses, so that it is not met again at exit."""
    try:
        _flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(name: str, arguments: Sequence[str]) -> None:
    if name in ("", "-h", "--help"):
        lines = (f"  {n:15}{text}" for n, text in COMMANDS.items())
        with naming(STDOUT):
            print(DESCRIPTION + "\n".join(lines) if name else TOUR)
        return
    if name not in COMMANDS:
        raise unknown("command", name, list(COMMANDS))
    if arguments and f"{name} {arguments[0]}" in COMMANDS:
        name, arguments = f"{name} {arguments[0]}", arguments[1:]
    import tyro

    from ._from_file import with_config

    command = importlib.import_module(f".{name.replace(' ', '_')}", __package__)
    kind = with_config(command.Options)
    shown: dict[str, Any] = {"prog": f"daqakd {name}", "description": COMMANDS[name]}
    shown |= _defaults(name, kind, arguments)
    with naming(STDOUT):  # of help
        options = tyro.cli(kind, args=arguments, **shown)
    if name in SHARED:
        with _ranks.joined():
            command.run(options)
    elif _ranks.launched()[0] == 0:
        command.run(options)


def _defaults(name: str, kind: type[Any], arguments: Sequence[str]) -> dict[str, Any]:
    """Return the options that a file or a recipe gives, below those of the command line."""
    from ._from_file import file_of, options_of, values_for
    from ._recipe import options_for, recipe_of

    path = file_of(arguments)
    values = {} if path is None else values_for(name, list(COMMANDS), path)
    recipe = recipe_of(arguments, values) if name in WITH_RECIPES else None
    if recipe is not None:
        values = options_for(name, recipe) | values
    if not values and path is None:
        return {}
    return {"default": options_of(kind, values, path or f"recipe {recipe}")}


if __name__ == "__main__":
    raise SystemExit(main())
