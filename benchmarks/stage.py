"""One stage of a long run: a command in a process group of its own, with a time limit and a log."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

STOPPED = 124
SECONDS_BETWEEN_CALLBACKS = 2.0
SECONDS_BETWEEN_LINES = 20.0
SECONDS_TO_END = 5.0


@dataclass(frozen=True)
class Stage:
    """A command of a long run.

    Args:
        purpose: what the command does, as a sentence without a subject.
        command: arguments of the process.
        seconds: the part of the budget that it may take.
        environment: variables besides the caller's.
        missing: why it cannot run, None where it can.
        beside: the command runs beside the stages after it, until one that is ``alone``.
        alone: the command is timed, so nothing else may run.
    """

    purpose: str
    command: list[str]
    seconds: float
    environment: dict[str, str] = field(default_factory=dict)
    missing: str | None = None
    beside: bool = False
    alone: bool = False


def last_line(log: Path, start: int = 0) -> str:
    """Return the last line that a log has from ``start`` on."""
    lines = log.read_bytes()[start:].decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def end_group(child: subprocess.Popen) -> None:
    """Kill a command and all it started: they would go on, and slow down the next stage."""
    end = time.monotonic() + SECONDS_TO_END  # one that nobody reaps stays listed for ever
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        while time.monotonic() < end:  # the signal is sent, the others may not have ended yet
            os.killpg(child.pid, 0)
            time.sleep(0.01)
    child.wait()


def wait_for(child: subprocess.Popen, log: Path, end: float, callback: Callable[[], None]) -> int:
    """Wait for a command until ``end``, showing that it is alive; return its exit code."""
    shown = time.monotonic()
    while time.monotonic() < end:
        with suppress(subprocess.TimeoutExpired):
            return child.wait(max(0.0, min(SECONDS_BETWEEN_CALLBACKS, end - time.monotonic())))
        callback()
        if time.monotonic() - shown > SECONDS_BETWEEN_LINES:
            shown = time.monotonic()
            print(f"  ... {last_line(log)[:100]}", flush=True)
    return STOPPED


@contextmanager
def started(stage: Stage, log: Path) -> Iterator[tuple[subprocess.Popen, int]]:
    """Start a stage and say where its output begins in ``log``; end it with all it started."""
    with log.open("ab") as file:
        file.write(f"\n$ {' '.join(stage.command)}\n".encode())
        file.flush()
        start = file.tell()
        child = subprocess.Popen(
            stage.command,
            env=os.environ | stage.environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        yield child, start
    finally:
        end_group(child)


def run(stage: Stage, log: Path, end: float, callback: Callable[[], None]) -> dict[str, object]:
    """Run a stage until ``end`` at the latest; return its exit code, duration and last line.

    ``callback`` is called every two seconds.
    """
    begin = time.monotonic()
    with started(stage, log) as (child, start):
        code = wait_for(child, log, end, callback)
    seconds = time.monotonic() - begin
    said = f"stopped after {seconds:.0f} s; " if code == STOPPED else ""
    return {"code": code, "seconds": seconds, "says": said + last_line(log, start)}


@contextmanager
def beside(stage: Stage, log: Path, keep: Callable[[dict[str, object]], None]) -> Iterator[None]:
    """Let a stage run beside others, and end it after them; ``keep`` gets what :func:`run` gives.

    To be ended is no failure of it.
    """
    begin = time.monotonic()
    with started(stage, log) as (child, start):
        yield
        code = child.poll()
    said = "ended before it was done; " if code is None else ""
    seconds = time.monotonic() - begin
    keep({"code": code or 0, "seconds": seconds, "says": said + last_line(log, start)})
