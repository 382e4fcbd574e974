"""Files of rows, as ``daqakd bench`` leaves them: read, found again in another file, as CSV."""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._errors import InputError
from .._files import read_json, write_json, write_text

Row = Mapping[str, Any]
Key = tuple[Any, ...]
KEY = ("op", "elements", "dtype", "form", "provider")
ROW = (*KEY, "seconds", "spread", "of_floor", "images_per_second", "note", "convention")
MACHINE = ("date", "processor", "gpu", "cores", "threads", "python")
NUMBERS = ("seconds", "spread", "of_floor", "copy_bytes_per_second")


@dataclass(frozen=True)
class Book:
    """The rows of a file and what they were made with."""

    path: Path
    record: Mapping[str, Any]

    @property
    def rows(self) -> list[Row]:
        """The rows in order."""
        rows: list[Row] = self.record["rows"]
        return rows

    @property
    def timed(self) -> dict[Key, Row]:
        """The rows that have a time, by what they time; of equal ones the last."""
        return {key_of(row): row for row in self.rows if row["seconds"]}

    @property
    def machine(self) -> str:
        """Processor or GPU, threads, date and the version of torch."""
        of = self.record
        versions = of.get("packages") or {}
        what = of.get("gpu") if of.get("device") == "cuda" else of.get("processor")
        return (
            f"{what or 'unknown processor'}, {of.get('threads', '?')} threads,"
            f" torch {versions.get('torch', '?')}, {str(of.get('date', 'undated'))[:10]}"
        )


def key_of(row: Row) -> Key:
    """Return what a row times."""
    return tuple(row[name] for name in KEY)


def read_book(path: Path) -> Book:
    """Read a file that ``daqakd bench`` wrote.

    Raises:
        InputError: it is damaged, or holds something else.
        OSError: it cannot be read.
    """
    record = read_json(path)
    rows = record.get("rows")
    if not isinstance(rows, list) or not all(_is_row(row) for row in rows):
        raise InputError(
            f"{path}: expected rows with {', '.join(KEY)} and seconds, as daqakd bench writes them;"
            " name its bench.json"
        )
    return Book(path, record)


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or not {*KEY, "seconds"} <= row.keys():
        return False
    numbers = [row.get(name) for name in NUMBERS]
    return all(n is None or (isinstance(n, int | float) and n >= 0) for n in numbers)


def csv_text(record: Mapping[str, Any]) -> str:
    """Return a line for every row, each with the machine and the versions it was made with."""
    rows = record["rows"]
    more = dict.fromkeys(name for row in rows for name in row if name not in ROW)
    packages = {f"{k} version": v for k, v in (record.get("packages") or {}).items() if v}
    made = {name: record.get(name) for name in MACHINE} | packages
    text = io.StringIO()
    writer = csv.DictWriter(text, [*ROW, *more, *made], lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, **made} for row in rows)
    return text.getvalue()


def write_book(path: Path, record: Mapping[str, Any]) -> None:
    """Write a file of rows, and the same as CSV beside it."""
    plain = json.loads(json.dumps(record))
    write_json(path, plain)
    write_text(path.with_suffix(".csv"), csv_text(plain))
