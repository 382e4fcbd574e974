"""Checkpoints of a ranking: one file per strategy, and one for what the rounds decided."""

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors import safe_open

from .._files import write_json, write_tensors
from .accumulator import Accumulator


class Checkpoint:
    """The folder of unfinished work: accumulators and what rounds dropped, of one fingerprint."""

    def __init__(self, folder: Path | None, fingerprint: str) -> None:
        self.folder, self.fingerprint = folder, fingerprint

    def load(self, accumulator: Accumulator) -> None:
        """Restore an accumulator as it was saved last."""
        path = self._path(f"{accumulator.name}.safetensors")
        if path is None or not path.exists():
            return
        with safe_open(path, "pt") as file:
            facts = file.metadata()
            if facts.get("fingerprint") == self.fingerprint:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                accumulator.restore(tensors, int(facts["done"]), float(facts["seconds"]))

    def save(self, accumulator: Accumulator) -> None:
        """Save an accumulator."""
        path = self._path(f"{accumulator.name}.safetensors")
        facts = {"done": str(accumulator.done), "seconds": repr(accumulator.seconds)}
        if path is not None:
            write_tensors(path, accumulator.tensors(), {"fingerprint": self.fingerprint, **facts})

    def rounds(self) -> tuple[list[list[str]], float]:
        """Return the names that each finished round dropped, and the seconds spent by then."""
        path = self._path("rounds.json")
        record = json.loads(path.read_text()) if path is not None and path.exists() else {}
        if record.get("fingerprint") != self.fingerprint:
            return [], 0.0
        return record["dropped"], record["seconds"]

    def save_rounds(self, dropped: Sequence[Sequence[str]], seconds: float) -> None:
        """Save the names that the finished rounds dropped, and the seconds spent."""
        path = self._path("rounds.json")
        record = {"fingerprint": self.fingerprint, "dropped": dropped, "seconds": seconds}
        if path is not None:
            write_json(path, record)

    def _path(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / "ranking.parts" / name
