"""Reports: one self-contained HTML page from finished runs; the microbenchmarks as a table."""

from .page import report

__all__ = ["report"]
