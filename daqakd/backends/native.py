"""The native backend: the compiled C++ and CUDA libraries, one file each inside the package."""

from pathlib import Path

import torch

from .._ops import INPUT_DTYPES, implemented

FILES = {"cpu": "_C.so", "cuda": "_C_cuda.so"}
DTYPES = {
    "cpu": (torch.float16, torch.bfloat16, torch.float32, torch.float64),
    "cuda": (torch.float16, torch.bfloat16, torch.float32),
}
BUILD = "pip install --force-reinstall --no-deps . (in the source folder)"


def _load(device: str) -> str | None:
    """Load the library for ``device``; return None, or the reason why not in one sentence."""
    path = Path(__file__).parents[1] / FILES[device]
    if not path.exists():
        return f"daqakd was installed without {path.name}; build it: {BUILD}"
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        return (
            f"{path.name} does not load with torch {torch.__version__}: {cause}; rebuild: {BUILD}"
        )
    return None


# Loaded and asked once, at import: torch.compile reads both as constants. No GPU is touched.
FAILURES = {device: _load(device) for device in FILES}
IMPLEMENTED = {device: implemented("native", device) for device in FILES}


def can_run(op: str, device: str, dtype: torch.dtype) -> str | None:
    """Return None when the libraries can run ``op``, else the reason in one sentence."""
    if device not in FILES:
        return f"the tensors are on {device}, the libraries run on {' and '.join(FILES)}"
    if FAILURES[device] is not None:
        return FAILURES[device]
    if op not in IMPLEMENTED[device]:
        return f"the libraries have no {op} op for {device} in this version"
    accepted = INPUT_DTYPES.get(op, DTYPES[device])
    if dtype not in accepted:
        known = ", ".join(str(known).removeprefix("torch.") for known in accepted)
        return f"on {device} the libraries take {known}, not {dtype}"
    return None
