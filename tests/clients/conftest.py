"""The table of what was tried, and whose warnings count."""

from collections import Counter
from pathlib import Path

import pytest

from .trial import Row

HEADS = (
    *("library", "model", "family", "method", "quantized", "not quantized, and why"),
    *("fused BatchNorms", "loss"),
)
TESTS = ("test", "passed", "failed", "errors")
ROWS = pytest.StashKey[list[tuple[str, ...]]]()


def pytest_addoption(parser) -> None:
    parser.addoption("--table", help="write what was tried to this Markdown file")


def pytest_configure(config) -> None:
    config.stash[ROWS] = []


def pytest_collection_modifyitems(items) -> None:
    for item in items:  # the last filter is asked first
        item.add_marker(pytest.mark.filterwarnings("ignore", "error:::daqakd"))


@pytest.fixture
def table(request):
    """Take a row of the table."""
    return lambda row: request.config.stash[ROWS].append(_cells(row))


def _cells(row: Row) -> tuple[str, ...]:
    whole = "; ".join(f"{count}: {why}" for why, count in row.whole.items()) or "-"
    loss = f"{row.loss:.3g}"
    kind = row.library, row.name, row.family, row.method
    return *kind, str(row.quantized), whole, row.fused, loss


def _counts(reports: dict[str, list]) -> list[tuple[str, ...]]:
    """Return what passed and failed of every test, its parameters together."""
    names: dict[str, Counter[str]] = {"passed": Counter(), "failed": Counter(), "error": Counter()}
    for outcome, counter in names.items():
        counter.update(report.nodeid.partition("[")[0] for report in reports.get(outcome, []))
    tests = sorted(set().union(*names.values()))
    return [(test, *(str(counter[test]) for counter in names.values())) for test in tests]


def _lines(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (heads, ("---",) * len(heads), *rows)] + [""]


def pytest_terminal_summary(terminalreporter, config) -> None:
    rows = sorted(config.stash[ROWS])
    counts = _counts(terminalreporter.stats)
    if path := config.getoption("--table"):
        Path(path).write_text("\n".join(_lines(HEADS, rows) + _lines(TESTS, counts)))
        terminalreporter.write_line(f"{len(rows)} models in {path}")
