"""Pack a GPU run: sources, libraries, wheels and images, for a machine with torch and no index.

There, ``tar xzf FILE -C DIR && sh DIR/daqakd-gpu/start --out ABSOLUTE/FOLDER`` starts the run.
"""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "daqakd"
NAME, LIMIT = "daqakd-gpu", 64 * 2**20  # bytes that can be carried at once
PYTHON, PLATFORMS = "3.12", ("manylinux_2_28_x86_64", "manylinux2014_x86_64")
# with what they need; torch, triton and NumPy are the machine's own
WHEELS = ["filelock", "pillow", "rich", "safetensors", "tomli-w"]
WHEELS += ["pytest", "pytest-timeout", "pytest-xdist"]
LIBRARIES = ("_C.so", "_C_cuda.so")
COMPILED = ("common", "cuda", "formulas")  # folders of csrc that the CUDA library is made of
IMAGES_PER_CLASS, FORMATS = 500, (".png", ".jpg", ".npy")
START = f"""#!/bin/sh
# Test and measure on this machine's GPU: sh start --out /absolute/folder
cd "$(dirname "$0")" || exit
python=${{PYTHON:-python3}} path=$PWD
# the wheels are Python {PYTHON}'s; another has to have these packages itself
found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ "$found" = {PYTHON} ]; then path=$path:$PWD/site; fi
export PYTHONPATH="$path" PIP_NO_INDEX=1 PYTHONUNBUFFERED=1
if [ -d data ]; then export DAQAKD_DATA="$PWD/data"; fi
exec "$python" -m benchmarks.gpu "$@"
"""


def git(*arguments: str) -> str:
    """Return what git says of this checkout."""
    return subprocess.check_output(["git", "-C", str(ROOT), *arguments], text=True).strip()


def sources() -> Iterator[Path]:
    """Yield what git tracks or would track, as it is now, without results."""
    for name in git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        path = ROOT / name
        if name and path.is_file() and not name.startswith("benchmarks/results/"):
            yield path


def libraries(package: Path = PACKAGE, csrc: Path = ROOT / "csrc") -> list[Path]:
    """Return the compiled libraries.

    Raises:
        SystemExit: one is missing, or older than what it is made of.
    """
    found = [package / name for name in LIBRARIES]
    inputs = [path for folder in COMPILED for path in (csrc / folder).glob("*.*")]
    newest = max((path.stat().st_mtime for path in inputs), default=0.0)
    for path in found:
        if not path.exists() or path.stat().st_mtime < newest:
            state = "is older than csrc" if path.exists() else "is missing"
            raise SystemExit(
                f"{path.name} {state}; build it: DAQAKD_BUILD=cuda python setup.py build_ext"
                " --inplace"
            )
    return found + sorted(package.glob("_host*.so"))


def download(folder: Path) -> None:
    """Unpack the wheels into ``folder``, which needs the package index."""
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--target", str(folder), "--no-compile", "--only-binary=:all:", *platforms]
    command += ["--python-version", PYTHON, "--implementation", "cp", *WHEELS]
    subprocess.run(command, check=True)


def images() -> Iterator[tuple[Path, str]]:
    """Yield the teachers and some images of each class of CIFAR-10, each with its place."""
    root = Path(os.environ.get("DAQAKD_DATA", "nowhere"))
    for path in sorted(root.glob("teachers/cifar10_*.safetensors")):
        yield path, f"data/teachers/{path.name}"
    for folder in sorted(root.glob("cifar10/*/*/")):
        for path in sorted(folder.iterdir())[:IMAGES_PER_CLASS]:
            yield path, f"data/{path.relative_to(root)}"


def facts() -> dict[str, object]:
    """Return what the bundle was made of; the file tells a run that its libraries are with it."""
    import torch

    changed = bool(git("status", "--porcelain", "--untracked-files=no"))
    return {
        "commit": git("rev-parse", "HEAD") + ("-changed" if changed else ""),
        "torch": torch.__version__,
        "wheels": WHEELS,
        "python": PYTHON,
    }


def members(scratch: Path) -> Iterator[tuple[Path, str]]:
    """Yield every file of a bundle, with its place in it."""
    for path in (*sources(), *libraries()):
        yield path, str(path.relative_to(ROOT))
    download(scratch / "site")
    for path in sorted((scratch / "site").rglob("*")):
        if path.is_file():
            yield path, str(path.relative_to(scratch))
    yield from images()
    (scratch / "start").write_text(START)
    (scratch / "bundle.json").write_text(json.dumps(facts(), indent=1) + "\n")
    yield scratch / "start", "start"
    yield scratch / "bundle.json", "bundle.json"


def pack(file: Path) -> int:
    """Write the bundle, print what it weighs, and return 0 where it can be carried."""
    file.parent.mkdir(parents=True, exist_ok=True)
    sizes: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as folder, tarfile.open(file, "w:gz") as tar:
        for path, place in members(Path(folder)):
            tar.add(path.resolve(), f"{NAME}/{place}", recursive=False)
            part = "libraries" if path.suffix == ".so" and path.parent == PACKAGE else place
            part = part.split("/")[0] if "/" in part else part
            sizes.setdefault(part, []).append(path.stat().st_size)
    for part, found in sorted(sizes.items(), key=lambda pair: -sum(pair[1])):
        print(f"{sum(found) / 2**20:7.2f} MiB in {len(found):5} files: {part}")
    size, unpacked = file.stat().st_size, sum(map(sum, sizes.values()))
    print(f"{file}: {size / 2**20:.2f} MiB packed, {unpacked / 2**20:.2f} unpacked")
    print(f"tar xzf {file} -C DIR && sh DIR/{NAME}/start --out ABSOLUTE/FOLDER")
    if size >= LIMIT:
        print(f"it is larger than the {LIMIT / 2**20:.0f} MiB that can be carried")
    return int(size >= LIMIT)
