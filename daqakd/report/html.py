"""The pieces of a self-contained page: tables, pictures inside it, its style."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any


class Best(str):
    """The text of a cell that is marked as the best of its column."""

    __slots__ = ()


def style() -> str:
    """Return the style sheet."""
    return files(__package__).joinpath("style.css").read_text()


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], best: int | None = None) -> str:
    """Return a table; ``best`` is the row to mark, a :class:`Best` marks its own cell."""
    lines = ["<tr>" + "".join(f"<th>{escape(h)}</th>" for h in header) + "</tr>"]
    for number, row in enumerate(rows):
        mark = ' class="best"' if number == best else ""
        lines.append(f"<tr{mark}>" + "".join(map(_cell, row)) + "</tr>")
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _cell(value: Any) -> str:
    mark = ' class="best"' if isinstance(value, Best) else ""
    return f"<td{mark}>{escape(str(value))}</td>"


def picture(content: bytes, description: str) -> str:
    """Return an image that holds its PNG bytes."""
    data = base64.b64encode(content).decode()
    return f'<p><img alt="{escape(description)}" src="data:image/png;base64,{data}"></p>'


def pictures(contents: Mapping[str, bytes]) -> str:
    """Return images beside each other, below each other on a narrow screen, by description."""
    shown = "".join(picture(content, what) for what, content in contents.items())
    return f'<div class="panels">{shown}</div>'


def percent(share: float | None) -> str:
    """Return a share in percent, or a dash."""
    return "-" if share is None else f"{share:.2%}"


def page(title: str, body: str) -> str:
    """Return the whole page."""
    head = "<meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
    head += f"<title>DAQAKD: {escape(title)}</title><style>{style()}</style>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{body}</body></html>\n"
