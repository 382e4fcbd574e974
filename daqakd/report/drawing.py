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


def png(drawn: Any) -> bytes:
    """Return a figure as PNG."""
    content = io.BytesIO()
    drawn.savefig(content, format="png", dpi=110)
    return content.getvalue()
