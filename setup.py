"""Build the C++ and CUDA libraries where torch and a compiler are, install without them elsewhere.

DAQAKD_BUILD            auto (what is possible), none, cpu, cuda (an error when impossible),
                        sanitize (the CPU library alone, with ASan and UBSan)
TORCH_CUDA_ARCH_LIST    GPU architectures, "8.0;9.0+PTX" when unset
CXX, CUDA_HOME, MAX_JOBS    compiler, toolkit, compilers side by side
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
TARGET = "0x020b000000000000"  # the stable ABI of torch 2.11
CHOICES = ("auto", "none", "cpu", "cuda", "sanitize")
REBUILD = "pip install --force-reinstall --no-deps ."


class Impossible(Exception):
    """The reason why a part cannot be built, as a sentence."""


def find_torch():
    """Return torch's folder without importing it; under build isolation, the one outside."""
    ask = "import importlib.util as u; s = u.find_spec('torch'); print(s.origin if s else '')"
    spec = importlib.util.find_spec("torch")
    outside = [sys.executable, "-E", "-P", "-c", ask]
    origin = spec.origin if spec else subprocess.check_output(outside, text=True).strip()
    if not origin:
        raise Impossible(f"torch is not installed; install torch, then: {REBUILD}")
    return Path(origin).parent


def torch_facts(torch):
    """Return ((major, minor), CUDA version or None) from torch's version file."""
    text = (torch / "version.py").read_text()
    version = re.search(r"__version__ = '(\d+)\.(\d+)", text)
    cuda = re.search(r"^cuda\b.*= '([\d.]+)'", text, re.M)
    return (int(version[1]), int(version[2])), cuda and cuda[1]


def compiler():
    """Return the C++ compiler."""
    found = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")
    if sys.platform != "linux" or not found:
        raise Impossible(f"no C++ compiler on Linux was found; install g++, then: {REBUILD}")
    if not shutil.which("ninja"):
        raise Impossible(f"ninja is not installed; pip install ninja, then: {REBUILD}")
    return found


def toolkit(torch, cuda):
    """Return (nvcc, root): nvcc itself says where its toolkit is, for it may be a wrapper."""
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    nvcc = shutil.which("nvcc", path=f"{home}/bin") if "CUDA_HOME" in os.environ else None
    nvcc = nvcc or shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin")
    if not cuda or not (torch / "lib/libtorch_cuda.so").exists():
        raise Impossible("the installed torch is built without CUDA")
    if not nvcc:
        raise Impossible(f"nvcc was not found; install CUDA {cuda}'s toolkit, then: {REBUILD}")
    said = subprocess.run([nvcc, "-dryrun", "x.cu"], capture_output=True, text=True).stderr
    top = re.search(r"TOP=(.+)", said)
    major = re.search(r"__CUDACC_VER_MAJOR__=(\d+)", said)
    if not top or not major or major[1] != cuda.split(".")[0]:
        raise Impossible(f"nvcc is not of CUDA {cuda}, which torch uses; set CUDA_HOME to one")
    return nvcc, Path(top[1].strip()).resolve()


def plan(wanted):
    """Return (variables of the build, names of the libraries), printing why any is left out."""
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
    names = []
    if wanted == "none":
        return build, names
    try:
        build["cxx"], build["torch"] = compiler(), find_torch()
        version, build["cuda"] = torch_facts(build["torch"])
        if version < (2, 11):
            raise Impossible(f"torch {version[0]}.{version[1]} is older than 2.11; upgrade it")
        names.append("_C")
        if wanted in ("auto", "cuda"):
            build["nvcc"], build["toolkit"] = toolkit(build["torch"], build["cuda"])
            names.append("_C_cuda")
    except Impossible as reason:
        if wanted == "cuda" or (wanted in ("cpu", "sanitize") and not names):
            raise SystemExit(f"daqakd: DAQAKD_BUILD={wanted} is impossible: {reason}") from None
        print(f"daqakd: {'without CUDA' if names else 'without C++'} libraries: {reason}")
    if names and wanted != "sanitize" and importlib.util.find_spec("pybind11"):
        names.append("_host")
    return build, names


BUILD, NAMES = plan(os.environ.get("DAQAKD_BUILD", "auto")) if __name__ == "__main__" else ({}, [])


class Build(build_ext):
    """Compile with ninja; the op libraries are tied to no Python, so their names carry no tag."""

    def get_ext_filename(self, name):
        """Return the file of a library."""
        tagged = name.endswith("_host")
        return super().get_ext_filename(name) if tagged else name.replace(".", "/") + ".so"

    def run(self):
        """Build every library; in place, also tell clangd how each file is compiled."""
        sys.path.insert(0, str(ROOT / "csrc"))
        super().run()
        if self.inplace and self.extensions:
            import ninja_file

            temp = Path(self.build_temp).resolve()
            ninja_file.write_compile_commands(temp, ROOT / "compile_commands.json")

    def build_extension(self, ext):
        """Write build.ninja for one library and run it."""
        import ninja_file

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
        cmdclass={"build_ext": Build},
    )
