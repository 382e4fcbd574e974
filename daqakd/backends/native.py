"""The native backend: the compiled C++ and CUDA libraries."""

import torch

STEMS: frozenset[str] = frozenset()  # the ops the libraries implement


def can_run(op: str, device: str, dtype: torch.dtype) -> str | None:
    """Return None when the libraries can run ``op``, else the reason in one sentence."""
    if op not in STEMS:
        return f"the libraries have no {op} op in this version"
    return None
