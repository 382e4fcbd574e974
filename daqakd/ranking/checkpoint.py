"""Checkpoints of a ranking: one file per strategy, and one for what the rounds decided."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from .._files import damaged, read_json, read_tensors, write_json, write_tensors
from .accumulator import Accumulator

LONGEST = 180
_PLAIN = "".join(map(chr, range(32, 127))).replace("/", "").replace("%", "")


class Checkpoint:
    """The folder of unfinished work: accumulators and what rounds dropped, of one fingerprint."""

    def __init__(self, folder: Path | None, fingerprint: str) -> None:
        self.folder, self.fingerprint = folder, fingerprint

    def load(self, accumulator: Accumulator) -> None:
        """Restore an accumulator as it was saved last."""
        path = self._strategy_path(accumulator.name)
        if path is None or not path.exists():
            return
        tensors, facts = read_tensors(path)
        if facts.get("fingerprint") == self.fingerprint:
            try:
                accumulator.restore(tensors, int(facts["done"]), float(facts["seconds"]))
            except (KeyError, ValueError, RuntimeError) as error:
                raise damaged(path, error) from error

    def save(self, accumulator: Accumulator) -> None:
        """Save an accumulator."""
        path = self._strategy_path(accumulator.name)
        facts = {"done": str(accumulator.done), "seconds": repr(accumulator.seconds)}
        if path is not None:
            write_tensors(path, accumulator.tensors(), {"fingerprint": self.fingerprint, **facts})

    def rounds(self) -> tuple[list[list[str]], float]:
        """Return the names that each finished round dropped, and the seconds spent by then."""
        path = self._path("rounds.json")
        record = read_json(path) if path is not None and path.exists() else {}
        if record.get("fingerprint") != self.fingerprint:
            return [], 0.0
        return record["dropped"], record["seconds"]

    def save_rounds(self, dropped: Sequence[Sequence[str]], seconds: float) -> None:
        """Save the names that the finished rounds dropped, and the seconds spent."""
        path = self._path("rounds.json")
        record = {"fingerprint": self.fingerprint, "dropped": dropped, "seconds": seconds}
        if path is not None:
            write_json(path, record)

    def _strategy_path(self, name: str) -> Path | None:
        # a registered name may hold what a file's name may not, or be longer than one
        plain = quote(name, safe=_PLAIN)
        if len(plain) > LONGEST:
            plain = f"{plain[:100]}-{hashlib.sha256(name.encode()).hexdigest()}"
        return self._path(f"{plain}.safetensors")

    def _path(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / "ranking.parts" / name
