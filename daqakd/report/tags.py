"""Pieces of a page: tables, pictures, percentages."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], best: int | None = None) -> str:
    """Return a table; row number ``best`` is marked."""
    lines = ["<tr>" + "".join(f"<th>{escape(h)}</th>" for h in header) + "</tr>"]
    for number, row in enumerate(rows):
        mark = ' class="best"' if number == best else ""
        lines.append(f"<tr{mark}>" + "".join(f"<td>{escape(str(c))}</td>" for c in row) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def picture(content: bytes, description: str) -> str:
    """Return a PNG as part of the page."""
    data = base64.b64encode(content).decode()
    return f'<p><img alt="{escape(description)}" src="data:image/png;base64,{data}"></p>'


def percent(share: float | None) -> str:
    """Return a share in percent, or a dash."""
    return "-" if share is None else f"{share:.2%}"
