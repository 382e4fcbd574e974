"""The Triton backend: adapters from the ops to ``daqakd.kernels``."""

from importlib.util import find_spec

import torch

STEMS: frozenset[str] = frozenset()  # the ops daqakd.kernels has kernels for


def can_run(op: str, device: str, dtype: torch.dtype) -> str | None:
    """Return None when a Triton kernel can run ``op``, else the reason in one sentence."""
    if op not in STEMS:
        return f"daqakd.kernels has no {op} kernel in this version"
    if find_spec("triton") is None:
        return "triton is not installed"
    return None if device == "cuda" else f"the tensors are on {device}, Triton runs on cuda"
