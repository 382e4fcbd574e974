"""The order of the GPU tests: a run that is cut short has seen every op, not one of them often."""

from collections import defaultdict
from itertools import zip_longest
from pathlib import Path

HERE = Path(__file__).parent
BACKENDS = ("native", "triton")


def subject_of(item) -> tuple[int, str]:
    """Return the place of a test's backend and the name of its op, or of its file."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    op = parameters.get("op") or parameters.get("stem") or item.path.stem
    backend = parameters.get("backend")
    return BACKENDS.index(backend) if backend in BACKENDS else len(BACKENDS), str(op)


def in_turns(items: list) -> list:
    """Return the first test of every subject, then the second, and so on."""
    by_subject = defaultdict(list)
    for item in items:
        by_subject[subject_of(item)].append(item)
    turns = zip_longest(*(by_subject[subject] for subject in sorted(by_subject)))
    return [item for turn in turns for item in turn if item is not None]


def pytest_collection_modifyitems(items) -> None:
    places = [i for i, item in enumerate(items) if item.path.is_relative_to(HERE)]
    for place, item in zip(places, in_turns([items[i] for i in places]), strict=True):
        items[place] = item
