"""Find what the libraries are built with: torch, a C++ compiler, CUDA's nvcc."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST = (2, 11)


class Impossible(Exception):
    """The reason why a part cannot be built, and what to do, in one sentence."""


def find_torch():
    """Return torch's folder without importing it; under build isolation, the one outside."""
    ask = "import importlib.util as u; s = u.find_spec('torch'); print(s.origin if s else '')"
    spec = importlib.util.find_spec("torch")
    outside = [sys.executable, "-E", "-P", "-c", ask]
    origin = spec.origin if spec else subprocess.check_output(outside, text=True).strip()
    if not origin:
        raise Impossible("torch is not installed; install torch")
    return Path(origin).parent


def torch_facts(torch):
    """Return ((major, minor), CUDA version or None) from torch's version file."""
    text = (torch / "version.py").read_text()
    version = re.search(r"__version__ = '(\d+)\.(\d+)", text)
    cuda = re.search(r"^cuda\b.*= '([\d.]+)'", text, re.M)
    return (int(version[1]), int(version[2])), cuda and cuda[1]


def torch_to_build_with():
    """Return (folder, CUDA version or None) of a torch that is new enough."""
    folder = find_torch()
    version, cuda = torch_facts(folder)
    if version < OLDEST:
        raise Impossible(f"torch {version[0]}.{version[1]} is older than 2.11; upgrade it")
    return folder, cuda


def compiler():
    """Return the C++ compiler."""
    found = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")
    if sys.platform != "linux" or not found:
        raise Impossible("no C++ compiler on Linux was found; install g++")
    if not shutil.which("ninja"):
        raise Impossible("ninja is not installed; pip install ninja")
    return found


def toolkit(torch, cuda):
    """Return (nvcc, root): nvcc itself says where its toolkit is, for it may be a wrapper."""
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    nvcc = shutil.which("nvcc", path=f"{home}/bin") if "CUDA_HOME" in os.environ else None
    nvcc = nvcc or shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin")
    if not cuda or not (torch / "lib/libtorch_cuda.so").exists():
        raise Impossible("the installed torch is built without CUDA")
    if not nvcc:
        raise Impossible(f"nvcc was not found; install CUDA {cuda}'s toolkit")
    said = subprocess.run([nvcc, "-dryrun", "x.cu"], capture_output=True, text=True).stderr
    top = re.search(r"TOP=(.+)", said)
    major = re.search(r"__CUDACC_VER_MAJOR__=(\d+)", said)
    if not top or not major or major[1] != cuda.split(".")[0]:
        raise Impossible(f"nvcc is not of CUDA {cuda}, which torch uses; set CUDA_HOME to one")
    return nvcc, Path(top[1].strip()).resolve()
