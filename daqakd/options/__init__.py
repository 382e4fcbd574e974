"""The command line's options: one dataclass per verb, shared groups by inheritance."""

from .groups import Common, Quantization, Ranking, Student, Teacher
from .verbs import (
    Bench,
    BenchOp,
    Doctor,
    Eval,
    Prepare,
    Rank,
    Report,
    Run,
    Search,
    Teach,
    Train,
    Verb,
)

__all__ = [
    "Bench",
    "BenchOp",
    "Common",
    "Doctor",
    "Eval",
    "Prepare",
    "Quantization",
    "Rank",
    "Ranking",
    "Report",
    "Run",
    "Search",
    "Student",
    "Teach",
    "Teacher",
    "Train",
    "Verb",
]
