"""Sweeps: a grid of runs in one directory, what came of them, and the page about them."""

from .page import write_page
from .plan import Plan, Row, read_plan
from .table import finished_rows, write_table
from .work import Failure, work

__all__ = [
    "Failure",
    "Plan",
    "Row",
    "finished_rows",
    "read_plan",
    "work",
    "write_page",
    "write_table",
]
