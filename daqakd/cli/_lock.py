"""One command at a time in a directory: the second says who holds it."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from .._errors import InputError
from .._files import remove_temporaries, write_text

LOCK, HOLDER = ".lock", ".lock-holder"


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Hold a run directory, made where it is missing, and removed again where it stays empty.

    Raises:
        InputError: it is no directory, or another command works in it.
    """
    created = _make(folder)
    try:
        with _holding(folder, folder / LOCK, folder / HOLDER):
            for place in (folder, folder / "checkpoint", folder / "ranking.parts"):
                remove_temporaries(place)
            yield
    finally:
        if created and {p.name for p in folder.iterdir()} <= {LOCK}:
            (folder / LOCK).unlink(missing_ok=True)
            folder.rmdir()


@contextmanager
def working_on(folder: Path) -> Iterator[None]:
    """Hold a directory by files beside it, for work that wants it empty at first."""
    place = folder.absolute()
    _make(place.parent)
    lock = place.with_name(f".{place.name}{LOCK}")
    with _holding(folder, lock, place.with_name(f".{place.name}{HOLDER}")):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _make(folder: Path) -> bool:
    """Make a directory; return whether it was missing."""
    missing = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(
            f"out: {folder} is a file or lies below one; name a directory, new or of a run"
        ) from error
    return missing


@contextmanager
def _holding(folder: Path, lock: Path, holder: Path) -> Iterator[None]:
    held = FileLock(lock, timeout=0)
    try:
        held.acquire()
    except Timeout as error:
        lock.touch()  # where it cannot be made, nobody holds it: the system says why
        raise InputError(
            f"{folder}: another daqakd command works there ({_who(holder)}); wait until it ends, or"
            " use another --out"
        ) from error
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        write_text(holder, f"pid {os.getpid()} on {socket.gethostname()} since {since}\n")
        yield
    finally:
        holder.unlink(missing_ok=True)
        held.release()


def _who(holder: Path) -> str:
    try:
        return holder.read_text().strip() or "it has just begun"
    except OSError:
        return "it has just begun"
