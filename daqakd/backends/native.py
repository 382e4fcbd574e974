"""The native backend: the compiled C++ and CUDA libraries, one file each inside the package."""

from pathlib import Path

import torch

from .._ops import MANY

# the ops the libraries implement
QUANTIZERS = frozenset({"lsq", "pact", "dorefa_activation", "dorefa_weight", "ewgs"})
STEMS = QUANTIZERS | MANY | {"cmi", "kd_loss"}
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


# Loaded once, at import: torch.compile reads the outcome as a constant. No GPU is touched.
FAILURES = {device: _load(device) for device in FILES}


def can_run(op: str, device: str, dtype: torch.dtype) -> str | None:
    """Return None when the libraries can run ``op``, else the reason in one sentence."""
    if device not in FILES:
        return f"the tensors are on {device}, the libraries run on {' and '.join(FILES)}"
    if op not in STEMS:
        return f"the libraries have no {op} op in this version"
    if FAILURES[device] is None and dtype not in DTYPES[device]:
        known = ", ".join(str(known).removeprefix("torch.") for known in DTYPES[device])
        return f"on {device} the libraries take {known}, not {dtype}"
    return FAILURES[device]
