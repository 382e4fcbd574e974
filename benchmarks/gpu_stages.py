"""The stages of a GPU run: their commands, and the seconds that each may take of nine minutes."""

import os
import shutil
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from daqakd.bench.registry import BENCHMARKS, NUM_IMAGES

from .stage import Stage

# other versions than CI's may warn of other things
PYTEST = [sys.executable, "-m", "pytest", "-v", "--tb=short", "-W", "default"]
PYTEST += ["-p", "no:cacheprovider", "-p", "no:benchmark"]
DTYPES = ("float32", "bfloat16")
SIZES = (67108864, 4194304, 65536)  # the largest first: a limit cuts what says least
OPS = ("augment", *(op for op in BENCHMARKS if op != "augment"))
SECONDS = {"augment": 35, "step": 24, "many": 15}
SECONDS |= dict.fromkeys(("dorefa_activation", "ewgs", "resnet20"), 12)
OTHER_SECONDS = 20  # of an op that is not in SECONDS
RANKER_BATCH = 500  # images


def pytest(dry: bool) -> list[str]:
    """Return the command of the GPU tests."""
    files = sorted(str(path) for path in Path("tests/gpu").glob("test_*.py"))
    return [*PYTEST, *files, "-m", "not gpu and not slow" if dry else "gpu"]


def sanitized(tool: str, tests: str, dry: bool, seconds: float) -> Stage:
    """Return tests under compute-sanitizer, whose errors fail the stage."""
    return Stage(
        f"{tool}: looks for wild or racing memory accesses in the small tests",
        ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", *pytest(dry), "-k", tests],
        seconds,
        {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},  # a cached block's neighbours hide what is outside
        missing=None if shutil.which("compute-sanitizer") else "compute-sanitizer is not installed",
    )


def measured(op: str, out: Path, dry: bool) -> Stage:
    """Return an op's rows, as ``daqakd bench`` has them."""
    num_images = NUM_IMAGES if op == "step" else RANKER_BATCH
    arguments: tuple[object, ...] = ((op,), SIZES, DTYPES, "cuda", 5, num_images)
    if dry:
        arguments = ((op,), (1024,), DTYPES[:1], "cpu", 1, 4)
    code = "from pathlib import Path; from daqakd.bench.run import bench_into;"
    code += f" bench_into(Path({str(out)!r}), *{arguments!r})"
    purpose, seconds = f"verifies and times {op}", SECONDS.get(op, OTHER_SECONDS)
    return Stage(purpose, [sys.executable, "-c", code], seconds)


def script(name: str, purpose: str, seconds: float, out: Path, *options: str) -> Stage:
    """Return a script of this folder."""
    command = [sys.executable, "-m", f"benchmarks.bench_{name}", "--out", str(out), *options]
    return Stage(purpose, command, seconds)


def rankings(out: Path, dry: bool, *options: str) -> Stage:
    """Return whole rankings, each in a process of its own."""
    runs = ["--runs", "2", *(["--images", "400"] if dry else [])]
    return script("ranking", "ranks seven strategies", 40, out, *runs, *options)


def real_images(out: Path, dry: bool) -> Stage:
    """Return the rankings of CIFAR-10, which has to be on the disk."""
    root, stage = os.environ.get("DAQAKD_DATA"), rankings(out, dry, "--data", "cifar10")
    if root is None:
        return replace(stage, missing="DAQAKD_DATA is not set")
    held = (Path(root) / "cifar10" / "train").is_dir()
    return stage if held else replace(stage, missing=f"DAQAKD_DATA: {root} has no cifar10/train")


def stages(scratch: Path, dry: bool) -> dict[str, Stage]:
    """Return the stages by name, in order; each writes its rows to a folder of ``scratch``."""
    workers = min(8, os.cpu_count() or 1)  # compiling Triton's kernels takes most of the time
    parallel = ["-n", str(workers), "--timeout-method=thread"] if find_spec("xdist") else []
    build = [sys.executable, "setup.py", "build_ext", "--inplace"]
    environment = {"DAQAKD_BUILD": "none"} if dry else {}
    rounds = ["--turns", "1"] if dry else []
    classes, steps = (["--classes", "10"], ["--batch", "4", "--steps", "2"]) if dry else ([], [])
    racing = "small and (augmentation or kd_loss or many)"  # kernels with shared memory
    return {
        "build": Stage("compiles the libraries", build, 80, environment),
        "tests": Stage("runs the GPU tests", [*pytest(dry), *parallel], 90),
        "memcheck": sanitized("memcheck", "small and not cmi_sums", dry, 35),
        "racecheck": sanitized("racecheck", racing, dry, 20),
        **{op: measured(op, scratch / op, dry) for op in OPS},
        "cmi": script("cmi", "times ranking statistics", 15, scratch / "cmi", *rounds, *classes),
        "share": script("share", "times augmentation beside a training step", 20, scratch / "share",
                        *rounds, *steps),
        "ranking": rankings(scratch / "ranking", dry),
        "cifar10": real_images(scratch / "cifar10", dry),
    }  # fmt: skip
