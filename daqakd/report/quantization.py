"""The report's section on how quantization went: curves over epochs, and each quantizer's end."""

from html import escape
from typing import Any

from . import figures
from .html import percent, pictures, table
from .record import RunRecord

HEADER = ["quantizer", "step at first", "step at last", "parameters at last"]
HEADER += ["oscillating", "clipped"]
NOTE = (
    "oscillating: weights whose code changed back within 128 steps of the epoch; clipped:"
    " activations beyond the highest level (with signs or a range: the lowest, too); both of the"
    " last epoch"
)


def quantization(run: RunRecord) -> str:
    """Return the section, empty where the run noted nothing of the kind."""
    noted = [record for record in run.records if record.get("quantizers")]
    if not noted:
        return ""
    first, last = noted[0]["quantizers"], noted[-1]["quantizers"]
    rows = [_row(name, first.get(name, {}), found) for name, found in last.items()]
    curves = pictures(figures.quantization(noted))
    names = "".join(f"<li>{escape(text)}</li>" for text in _named(noted[-1]["names"]))
    notes = f"<p class='note'>{escape(NOTE)}</p><ul>{names}</ul>"
    return f"<h2>Quantization</h2>{curves}{table(HEADER, rows)}{notes}"


def _row(name: str, first: dict[str, Any], last: dict[str, Any]) -> list[str]:
    return [
        name,
        *("-" if q.get("step") is None else f"{q['step']:.3g}" for q in (first, last)),
        ", ".join(f"{key} {_number(value)}" for key, value in last["parameters"].items()) or "-",
        *(percent(last.get(key)) for key in ("oscillating", "clipped")),
    ]


def _number(value: float | list[float]) -> str:
    """Return a number, or the smallest and the largest of many."""
    return " to ".join(f"{v:.3g}" for v in (value if isinstance(value, list) else [value]))


def _named(names: dict[str, list[str]]) -> list[str]:
    """Return what is wrong with which parameters and quantizers in the last epoch."""
    words = {"no_gradient": "without a gradient", "at_floor": "at the floor of 2^-30"}
    return [f"{words[key]}: {', '.join(found)}" for key, found in names.items() if found]
