"""``metrics.csv``: one row per epoch, each with a hash of itself and all above it.

Columns that every run has come first, then those of the run's parts.
"""

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .._files import damaged, read_bytes

COLUMNS = ("epoch", "loss", "ce", "kl", "accuracy", "heldout_accuracy", "lr")
HASH = "row_hash"  # absent in files of older versions


def row_hash(above: str, cells: Sequence[str]) -> str:
    """Return the hash of a row, from that of the row above."""
    return hashlib.sha256(",".join([above, *cells]).encode()).hexdigest()[:16]


def further(names: Sequence[str], first: Sequence[str]) -> str:
    """Return what the first row's hash starts from: the columns that not every run has."""
    return ",".join(names[len(first) :])


def to_csv(rows: Sequence[Mapping[str, Any]], first: Sequence[str] = COLUMNS) -> str:
    """Return the text of a file; None is an empty cell, and so is what a row does not have."""
    text = io.StringIO()
    writer = csv.writer(text)
    names = list(dict.fromkeys([*first, *(name for row in rows for name in row)]))
    writer.writerow([*names, HASH])
    above = further(names, first)
    for row in rows:
        cells = ["" if row.get(name) is None else str(row[name]) for name in names]
        above = row_hash(above, cells)
        writer.writerow([*cells, above])
    return text.getvalue()


def read_metrics(path: Path, first: Sequence[str] = COLUMNS) -> list[dict[str, str]]:
    """Read the rows of a file whose ``first`` columns are known; none where there is no file.

    Raises:
        InputError: the file is damaged.
    """
    if not path.exists():
        return []
    text = read_bytes(path).decode(errors="replace")
    try:
        header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    except (ValueError, csv.Error) as error:
        raise damaged(path, "it is no table") from error
    if not rows or not text.endswith("\n"):
        raise damaged(path, "its end is missing")
    hashed = header[-1] == HASH
    names = header[: len(header) - hashed]
    own = names == list(first) or (hashed and names[: len(first)] == list(first))
    if not own or len(set(names)) < len(names):
        raise damaged(path, "its header is not one of daqakd's")
    above = further(names, first)
    for number, row in enumerate(rows, 2):
        cells, told = row[: len(names)], row[len(names) :]
        above = row_hash(above, cells)
        if len(cells) < len(names) or told != ([above] if hashed else []):
            raise damaged(path, f"line {number} is not what was written")
    return [dict(zip(names, row, strict=False)) for row in rows]
