"""Figures without a window, and their PNG bytes."""

import io
from typing import Any


def figure(width: float, height: float) -> Any:
    """Return an empty figure of so many inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def legend(axes: Any, **options: Any) -> None:
    """Add a legend whose names are text, whatever is in them."""
    for text in axes.legend(**options).get_texts():
        text.set_parse_math(False)


def png(drawn: Any) -> bytes:
    """Return a figure as PNG."""
    content = io.BytesIO()
    drawn.savefig(content, format="png", dpi=110)
    return content.getvalue()
