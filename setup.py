"""Build the C++ and CUDA libraries where a compiler is, install without them elsewhere.

DAQAKD_BUILD            auto (what is possible), none, cpu, cuda (an error when impossible),
                        sanitize (the CPU library alone, with ASan and UBSan)
TORCH_CUDA_ARCH_LIST    GPU architectures, "8.0;9.0+PTX" when unset
CXX, CUDA_HOME, MAX_JOBS    compiler, toolkit, compilers side by side
"""

import importlib.util
import json
import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "csrc"))
import ninja_file  # noqa: E402
from toolchain import Impossible, compiler, toolkit, torch_to_build_with  # noqa: E402

TARGET = "0x020b000000000000"  # the stable ABI of torch 2.11
CHOICES = ("auto", "none", "cpu", "cuda", "sanitize")
REBUILD = "pip install --force-reinstall --no-deps ."


def plan(wanted):
    """Return (variables of the build, names of the libraries, the reason why any is left out)."""
    if wanted not in CHOICES:
        raise SystemExit(f"DAQAKD_BUILD: expected {', '.join(CHOICES)}, got {wanted!r}")
    build = {
        "flags": f"-std=c++20 -O3 -DTORCH_TARGET_VERSION={TARGET} -DTORCH_STABLE_ONLY",
        # Nothing reads floating-point exceptions, and choices between values then vectorize.
        "host_flags": "-fPIC -fvisibility=hidden -ffp-contract=off -fno-trapping-math"
        f" -ffile-prefix-map={ROOT}=.",
        "sanitize": wanted == "sanitize",
        "arch_list": os.environ.get("TORCH_CUDA_ARCH_LIST", "8.0;9.0+PTX"),
    }
    names, why = [], ""
    if wanted == "none":
        return build, names, why
    try:
        build["cxx"], (build["torch"], build["cuda"]) = compiler(), torch_to_build_with()
        names.append("_C")
        if wanted in ("auto", "cuda"):
            build["nvcc"], build["toolkit"] = toolkit(build["torch"], build["cuda"])
            names.append("_C_cuda")
    except Impossible as reason:
        if wanted == "cuda" or (wanted in ("cpu", "sanitize") and not names):
            raise SystemExit(f"daqakd: DAQAKD_BUILD={wanted} is impossible: {reason}") from None
        why = str(reason)
        print(f"daqakd: {'without CUDA' if names else 'without C++'} libraries: {why}", end="")
        print(f", then: {REBUILD}")
    if names and wanted != "sanitize" and importlib.util.find_spec("pybind11"):
        names.append("_host")
    return build, names, why


WANTED = os.environ.get("DAQAKD_BUILD", "auto")
BUILD, NAMES, WHY = plan(WANTED) if __name__ == "__main__" else ({}, [], "")


def note(folder):
    """Write what was asked for and why libraries are left out, which the package tells its user."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "build.json").write_text(json.dumps({"DAQAKD_BUILD": WANTED, "left_out": WHY}) + "\n")


class Modules(build_py):
    """Copy the modules, and note how the libraries beside them were built."""

    def run(self):
        """Copy; an editable install has its note in the source folder."""
        super().run()
        note(ROOT / "daqakd" if self.editable_mode else Path(self.build_lib) / "daqakd")


class Build(build_ext):
    """Compile with ninja; the op libraries are tied to no Python, so their names carry no tag."""

    def get_ext_filename(self, name):
        """Return the file of a library."""
        tagged = name.endswith("_host")
        return super().get_ext_filename(name) if tagged else name.replace(".", "/") + ".so"

    def run(self):
        """Build every library; in place, also tell clangd how each file is compiled."""
        super().run()
        if self.inplace:
            note(ROOT / "daqakd")
        if self.inplace and self.extensions:
            temp = Path(self.build_temp).resolve()
            ninja_file.write_compile_commands(temp, ROOT / "compile_commands.json")

    def build_extension(self, ext):
        """Write build.ninja for one library and run it."""
        out = Path(self.get_ext_fullpath(ext.name)).resolve()
        work = Path(self.build_temp).resolve() / ext.name
        work.mkdir(parents=True, exist_ok=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        ninja_file.write(ext.name.rpartition(".")[2], out, work, ROOT / "csrc", BUILD)
        jobs = ["-j", os.environ["MAX_JOBS"]] if "MAX_JOBS" in os.environ else []
        self.spawn(["ninja", "-C", str(work), *jobs])


if __name__ == "__main__":
    setup(
        ext_modules=[Extension(f"daqakd.{name}", []) for name in NAMES],
        cmdclass={"build_ext": Build, "build_py": Modules},
    )
