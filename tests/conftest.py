"""Fixtures shared by all tests."""

import os

import pytest
import torch

from .emulator import backend as emulated  # noqa: F401  adds the backend

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
