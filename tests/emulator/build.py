"""Compile the CUDA sources for the emulator: ``python -m tests.emulator.build``.

Nothing of them is changed: g++ compiles them against ``runtime/device.h``, with the calls of the
thread and undefined-behaviour sanitizers, which ``runtime/hooks.cpp`` answers.
"""

import importlib.util
import platform
import shutil
import subprocess
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).parents[2]
RUNTIME = Path(__file__).parent / "runtime"
OUT = ROOT / "build" / "emulator"
LIBRARY = "_C_emulated.so"
# torch's C functions that the sources reach by another name, see runtime/memory.cpp
RENAMED = {
    "aoti_torch_get_data_ptr": "emulated_get_data_ptr",
    "torch_get_mutable_data_ptr": "emulated_get_mutable_data_ptr",
    "torch_get_const_data_ptr": "emulated_get_const_data_ptr",
    "aoti_torch_delete_tensor_object": "emulated_delete_tensor",
    "aoti_torch_empty_strided": "emulated_empty_strided",
    "aoti_torch_get_current_cuda_stream": "emulated_get_stream",
    "aoti_torch_create_device_guard": "emulated_create_guard",
    "aoti_torch_delete_device_guard": "emulated_delete_guard",
}
UNDEFINED = "bounds,signed-integer-overflow,shift,integer-divide-by-zero,float-cast-overflow,bool"
RULES = """
rule cxx
  command = g++ $flags -MMD -MF $out.d -c $in -o $out
  depfile = $out.d
  deps = gcc
rule link
  command = g++ -shared $in -L{torch}/lib -ltorch_cpu -o $out
"""


def impossible() -> str | None:
    """Return why this machine cannot build the emulator, or None."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "the emulator's fibers are written for Linux on x86-64"
    for tool in ("g++", "ninja"):
        if shutil.which(tool) is None:
            return f"the emulator is built with {tool}, which was not found"
    return None


def torch_folder() -> Path:
    """Return the folder of torch, without importing it."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def jobs(csrc: Path) -> dict[str, tuple[Path, str]]:
    """Return the source and the flags of every object."""
    common = "-std=c++20 -g1 -gdwarf-4 -fPIC -fvisibility=hidden -ffp-contract=off -DUSE_CUDA"
    common += f" -DTORCH_TARGET_VERSION=0x020b000000000000 -isystem {torch_folder()}/include"
    common += f" -I{RUNTIME}"
    sources = f"{common} -O1 -w -DDAQAKD_EMULATED -DDAQAKD_DEVICE=cuda -DDAQAKD_KEY=CPU"
    sources += " -DDAQAKD_OVERLOAD='\".emulated\"' "
    sources += " ".join(f"-D{old}={new}" for old, new in RENAMED.items())
    checks = f"-fsanitize=thread -fsanitize={UNDEFINED} --param tsan-instrument-func-entry-exit=0"
    device = f"{sources} {checks} -include {RUNTIME}/device.h -x c++"
    found = {path.stem: (path, f"{common} -O2 -Wall") for path in sorted(RUNTIME.glob("*.cpp"))}
    found |= {path.stem: (path, device) for path in sorted(csrc.glob("cuda/*.cu"))}
    return found | {path.stem: (path, sources) for path in csrc.glob("registration.cpp")}


def build(csrc: Path = ROOT / "csrc", out: Path = OUT) -> Path:
    """Build what has changed in ``out`` and return the library."""
    out.mkdir(parents=True, exist_ok=True)
    lines = [RULES.format(torch=torch_folder())]
    for stem, (source, flags) in jobs(csrc).items():
        lines += [f"build {stem}.o: cxx {source}", f"  flags = {flags}"]
    objects = " ".join(f"{stem}.o" for stem in jobs(csrc))
    lines += [f"build {LIBRARY}: link {objects}", ""]
    with FileLock(out / ".lock"):
        (out / "build.ninja").write_text("\n".join(lines))
        done = subprocess.run(["ninja", "-C", out], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the emulator does not build:\n{done.stdout[-4000:]}")
    return out / LIBRARY


if __name__ == "__main__":
    print(build())
