"""Reports: one self-contained HTML page from finished runs."""

from .page import report

__all__ = ["report"]
