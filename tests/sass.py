"""What the machine code of a kernel shows without a GPU: registers, spills, widths of accesses."""

import re
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Kernel:
    """One kernel for one architecture."""

    registers: int = 0
    stack: int = 0
    loads: int = 0  # of 16 bytes from global memory
    stores: int = 0
    traps: bool = False  # it stops where an index is wild


def tool(name: str) -> Path | None:
    """Return a tool of the CUDA toolkit; Triton's wheel carries them."""
    from importlib.util import find_spec

    spec = find_spec("triton")
    path = Path(spec.origin or "").parent / "backends/nvidia/bin" / name if spec else None
    return path if path and path.exists() else None


def dump(file: Path) -> str:
    command = [str(tool("cuobjdump")), "-res-usage", "-sass", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def short(symbol: str) -> str:
    """Return ``lsq_forward_runs<float,4,false>`` for a mangled or plain name."""
    plain = subprocess.run(["c++filt", symbol], capture_output=True, text=True, check=True).stdout
    plain = re.sub(r"\(anonymous namespace\)::|daqakd::cuda::|^void ", "", plain.strip())
    return plain.split("(")[0].replace(" ", "").replace("__nv_", "").replace("__", "")


def kernels(file: Path) -> dict[tuple[str, str], Kernel]:
    """Return the kernels of a library or cubin by (symbol, architecture)."""
    found: dict[tuple[str, str], Kernel] = defaultdict(Kernel)
    arch = symbol = ""
    for line in dump(file).splitlines():
        if match := re.search(r"arch = (sm_\d+)|Fatbin .*?arch=(sm_\d+)", line):
            arch = match[1] or match[2]
        elif match := re.search(r"Function :? ?([\w$.]+)", line):
            symbol = match[1].rstrip(":")
        elif match := re.search(r"REG:(\d+) STACK:(\d+)", line):
            kernel = found[symbol, arch]
            kernel.registers, kernel.stack = int(match[1]), int(match[2])
        elif "BPT.TRAP" in line:
            found[symbol, arch].traps = True
        elif ".128" in line:
            found[symbol, arch].loads += "LDG.E" in line
            found[symbol, arch].stores += "STG.E" in line
    return dict(found)
