"""One run at a time in a directory: the second says who holds it.

The functions that write take it; so does a command, around all of them: what a thread holds it may
take again.
"""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from . import _ranks
from ._errors import InputError, naming
from ._files import remove_temporaries, write_text

LOCK, HOLDER = ".lock", ".lock-holder"
_own = threading.local()


class Busy(InputError):
    """Another run works in the directory."""


@contextmanager
def working_in(folder: str | Path | None, argument: str = "run_dir") -> Iterator[None]:
    """Hold a run directory, made where it is missing, and removed again where it stays empty.

    None holds nothing; of several ranks the first holds it; ``argument`` is what errors call it.

    Raises:
        InputError: it is no directory.
        Busy: another run works in it.
    """
    if folder is None or not _ranks.is_writer() or _key(Path(folder)) in _held():
        yield
        return
    place = Path(folder)
    created = _make(place, argument)
    try:
        with _holding(place, place / LOCK, place / HOLDER, argument):
            for part in (place, place / "checkpoint", place / "ranking.parts"):
                remove_temporaries(part)
            yield
    finally:
        if created and {p.name for p in place.iterdir()} <= {LOCK}:
            (place / LOCK).unlink(missing_ok=True)
        _remove_empty(created)


@contextmanager
def working_on(folder: Path, argument: str = "out") -> Iterator[None]:
    """Hold a directory by files beside it, for work that wants it empty at first."""
    place = folder.absolute()
    created = _make(place.parent, argument)
    lock = place.with_name(f".{place.name}{LOCK}")
    try:
        with _holding(folder, lock, place.with_name(f".{place.name}{HOLDER}"), argument):
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
    finally:
        _remove_empty(created)


def _make(folder: Path, argument: str) -> list[Path]:
    """Make a directory; return it and those above it that were missing, innermost first."""
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(
            f"{argument}: {folder} is a file or lies below one; name a directory, new or of a run"
        ) from error
    return missing


def _remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):  # the first that holds something, and all above it, stay
        for folder in folders:
            folder.rmdir()


def _held() -> set[str]:
    """Return what this thread holds."""
    held: set[str] = _own.__dict__.setdefault("held", set())
    return held


def _key(folder: Path) -> str:
    return os.path.realpath(folder)


@contextmanager
def _holding(folder: Path, lock: Path, holder: Path, argument: str) -> Iterator[None]:
    taken, key = FileLock(lock, timeout=0), _key(folder)
    with naming(lock):
        try:
            taken.acquire()
        except Timeout as error:
            with open(lock, "ab"):  # an error of the system where there can be no such file
                pass
            raise Busy(
                f"{argument}: another daqakd run works in {folder} ({_who(holder)}); wait until it"
                " ends, or use another directory"
            ) from error
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        with suppress(OSError):  # on a full disk the lock holds without a note
            write_text(holder, f"pid {os.getpid()} on {socket.gethostname()} since {since}\n")
        _held().add(key)
        yield
    finally:
        _held().discard(key)
        holder.unlink(missing_ok=True)
        taken.release()


def _who(holder: Path) -> str:
    try:
        return holder.read_text().strip() or "it has just begun"
    except OSError:
        return "it has just begun"
