"""Epochs told to other programs: ``metrics.jsonl``, and scalars for TensorBoard."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from .._errors import InputError
from .._files import damaged, read_bytes, write_text
from .metrics import HASH, row_hash
from .part import Part


class JSONLines(Part):
    """One line per epoch: its row of the metrics file, and the detail of its layers.

    Args:
        path: the file. Lines of epochs that a continued run repeats are replaced.
        detail: returns what else to write about the epoch that has just ended.
    """

    name = "jsonl"

    def __init__(self, path: Path, detail: Callable[[], dict[str, Any]]) -> None:
        self.path, self.detail = path, detail
        self.records = read_records(path)

    def after_epoch(self, row: dict[str, Any]) -> None:
        """Write the file anew."""
        self.records = [r for r in self.records if r["epoch"] < row["epoch"]]
        self.records.append(row | self.detail())
        lines, above = [], ""
        for record in self.records:
            above = row_hash(above, [json.dumps(record)])
            lines.append(json.dumps(record | {HASH: above}) + "\n")
        with suppress(OSError):  # the checkpoint and the metrics file, which are next, say it
            write_text(self.path, "".join(lines))


def read_records(path: Path) -> list[dict[str, Any]]:
    """Read a ``metrics.jsonl``, one dictionary per epoch; none where there is no file.

    Raises:
        InputError: the file is damaged.
    """
    if not path.exists():
        return []
    text, records, above = read_bytes(path).decode(errors="replace"), [], ""
    if not text.endswith("\n"):
        raise damaged(path, "its end is missing")
    for number, line in enumerate(text.splitlines(), 1):
        try:
            record = json.loads(line)
            told = record.pop(HASH)
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise damaged(path, f"line {number} is no record of an epoch") from error
        above = row_hash(above, [json.dumps(record)])
        if told != above:
            raise damaged(path, f"line {number} is not what was written")
        records.append(record)
    return records


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "tensorboard: is not installed; pip install 'daqakd[tensorboard]', or leave"
            " --tensorboard out"
        ) from error
    return SummaryWriter


class TensorBoard(Part):
    """The numbers of each epoch as scalars; those a continued run repeats are purged there.

    Args:
        folder: where the event files go.
        epochs: of the whole run.

    Raises:
        InputError: TensorBoard is not installed.
    """

    name = "tensorboard"

    def __init__(self, folder: Path, epochs: int) -> None:
        self.folder, self.epochs, self.kind = folder, epochs, _writer_class()
        self.writer: Any = None

    def after_epoch(self, row: dict[str, Any]) -> None:
        """Write an epoch's scalars."""
        epoch = row["epoch"]
        if self.writer is None:
            self.writer = self.kind(str(self.folder), purge_step=epoch)
        for name, value in row.items():
            if name != "epoch" and value is not None:
                self.writer.add_scalar(name, value, epoch)
        self.writer.flush()
        if epoch == self.epochs:
            self.writer.close()
