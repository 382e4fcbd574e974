"""Fixtures shared by all tests."""

import pytest
import torch

NEW_TENSORS = (
    (torch, "empty"),
    (torch, "empty_like"),
    (torch, "empty_strided"),
    (torch.Tensor, "new_empty"),
)


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
