"""The native backend: the compiled C++ and CUDA libraries, one file each inside the package."""

import json
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from .._ops import INPUT_DTYPES, implemented

FOLDER = Path(__file__).parents[1]
NOTE = "build.json"  # setup.py's: DAQAKD_BUILD, and why a library was left out
FILES = {"cpu": "_C.so", "cuda": "_C_cuda.so"}
DTYPES = {
    "cpu": (torch.float16, torch.bfloat16, torch.float32, torch.float64),
    "cuda": (torch.float16, torch.bfloat16, torch.float32),
}
BUILD = "pip install --force-reinstall --no-deps . (in the source folder)"
DRIVERS = ("/dev/nvidiactl", "/dev/dxg")  # of a GPU, on Linux and in WSL; nothing is asked of them


def _note() -> dict[str, Any]:
    path = FOLDER / NOTE
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return {"DAQAKD_BUILD": "auto", "left_out": "", **found}


def _missing(name: str) -> str:
    """Say that a library is not there, why, and how to get it."""
    note = _note()
    choice, why = note["DAQAKD_BUILD"], note["left_out"]
    cause = ""
    if choice != "auto":
        cause = f" by DAQAKD_BUILD={choice}"
    elif why:
        cause = f": {why}"
    return f"daqakd was installed without {name}{cause}; to build it: {BUILD}"


def _load(device: str) -> str | None:
    """Load the library for ``device``; return None, or the reason why not in one sentence."""
    path = FOLDER / FILES[device]
    if not path.exists():
        return _missing(path.name)
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        return (
            f"{path.name} does not load with torch {torch.__version__}: {cause}; rebuild: {BUILD}"
        )
    return None


def _could_be_mended(device: str) -> bool:
    """Return whether a library is missing by no choice of the user's, on a machine for it."""
    has_gpu = any(map(os.path.exists, DRIVERS))
    if (FOLDER / FILES[device]).exists():
        return device == "cpu" or has_gpu
    if device == "cuda" or _note()["DAQAKD_BUILD"] != "auto":  # on a GPU Triton has the same ops
        return False
    has_compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")
    return has_gpu or (sys.platform == "linux" and has_compiler is not None)


def _warn(failures: dict[str, str | None]) -> None:
    """Say once what would otherwise only be slow: pip shows nothing of a build."""
    for device, failure in failures.items():
        if failure is not None and _could_be_mended(device):
            warnings.warn(
                f"{failure}. Until then the ops on {device} are slower; the same command with"
                " DAQAKD_BUILD=none leaves it so and ends this warning",
                RuntimeWarning,
                stacklevel=2,
            )


# Loaded and asked once, at import: torch.compile reads both as constants. No GPU is touched.
FAILURES = {device: _load(device) for device in FILES}
IMPLEMENTED = {device: implemented("native", device) for device in FILES}
_warn(FAILURES)


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
