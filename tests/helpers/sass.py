"""What the machine code of a kernel shows without a GPU: registers, spills, widths of accesses."""

import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
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


def cuobjdump(file: Path, *options: str) -> Iterator[str]:
    command = [str(tool("cuobjdump")), *options, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield from process.stdout
    assert process.returncode == 0, command


def short(symbols: Iterable[str]) -> dict[str, str]:
    """Return ``magnitude_many_kernel<float>`` and the like for mangled or plain names."""
    names = list(symbols)
    done = subprocess.run(
        ["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True
    )
    return dict(zip(names, map(_short, done.stdout.splitlines()), strict=True))


def _short(plain: str) -> str:
    plain = re.sub(r"\(anonymous namespace\)::|daqakd::(cuda::)?|^void ", "", plain.strip())
    return plain.split("(")[0].replace(" ", "").replace("__nv_", "").replace("__", "")


def kernels(file: Path) -> dict[tuple[str, str], Kernel]:
    """Return the kernels of a library or cubin by (symbol, architecture)."""
    if file.suffix == ".cubin":
        return _kernels(file)
    listed = re.findall(r"\.(sm_\d+)\.", "".join(cuobjdump(file, "-lelf")))
    with ThreadPoolExecutor() as pool:  # a process for each architecture
        parts = list(pool.map(lambda arch: _kernels(file, "-arch", arch), sorted(set(listed))))
    return {key: kernel for part in parts for key, kernel in part.items()}


def _kernels(file: Path, *options: str) -> dict[tuple[str, str], Kernel]:
    found: dict[tuple[str, str], Kernel] = defaultdict(Kernel)
    arch = symbol = ""
    for line in cuobjdump(file, "-res-usage", "-sass", *options):
        if ".128" in line:
            found[symbol, arch].loads += "LDG.E" in line
            found[symbol, arch].stores += "STG.E" in line
        elif "BPT.TRAP" in line:
            found[symbol, arch].traps = True
        elif line.lstrip().startswith("/*"):  # any other instruction
            continue
        elif match := re.search(r"arch = (sm_\d+)|Fatbin .*?arch=(sm_\d+)", line):
            arch = match[1] or match[2]
        elif match := re.search(r"Function :? ?([\w$.]+)", line):
            symbol = match[1].rstrip(":")
        elif match := re.search(r"REG:(\d+) STACK:(\d+)", line):
            kernel = found[symbol, arch]
            kernel.registers, kernel.stack = int(match[1]), int(match[2])
    return dict(found)
