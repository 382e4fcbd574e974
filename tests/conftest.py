"""Fixtures shared by all tests."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from .emulator import backend as emulated
from .emulator import build

# the tests' tensors are small: more threads only wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

NEW_TENSORS = (
    (torch, "empty"),
    (torch, "empty_like"),
    (torch, "empty_strided"),
    (torch.Tensor, "new_empty"),
)


if os.environ.get("TRITON_INTERPRET") == "1":
    from .helpers import interpreter as interpreter  # strict from here on


BUILDING = pytest.StashKey[subprocess.Popen]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave what lives as long as the process out of garbage collections, 0.3 s each time.

    The emulator is built beside the tests before its own, which wait for the same lock.
    """
    gc.collect()
    gc.freeze()
    if session.config.option.collectonly or emulated.LIBRARY in os.environ or build.impossible():
        return
    if any(emulated.NAME in item.nodeid for item in session.items):
        session.config.stash[BUILDING] = subprocess.Popen(
            [sys.executable, "-m", "tests.emulator.build"],
            cwd=Path(__file__).parents[1],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def pytest_unconfigure(config: pytest.Config) -> None:
    if BUILDING in config.stash:
        config.stash[BUILDING].wait()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _poison(make):
    def poisoned(*args, **kwargs):
        new = make(*args, **kwargs)
        return new.fill_(float("nan")) if new.is_floating_point() else new

    return poisoned


@pytest.fixture
def poisoned_empty(monkeypatch) -> None:
    """Fill every new floating-point tensor with NaN, so that an unwritten element shows."""
    for owner, name in NEW_TENSORS:
        monkeypatch.setattr(owner, name, _poison(getattr(owner, name)))
