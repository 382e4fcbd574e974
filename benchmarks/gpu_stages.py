"""What a GPU run consists of: stages, their commands and their shares of nine minutes."""

import os
import shutil
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from .stage import Stage

# other versions than CI's may warn of other things
PYTEST = [sys.executable, "-m", "pytest", "-v", "--tb=short", "-W", "default"]
PYTEST += ["-p", "no:cacheprovider", "-p", "no:benchmark"]
DTYPES = ("float32", "bfloat16")
SIZES = (67108864, 4194304, 65536)  # the largest first: a limit cuts what says least
QUANTIZERS = {"lsq": 20, "pact": 20, "dorefa_weight": 20, "dorefa_activation": 12, "ewgs": 12}
OPS = {
    "augment": 35,
    **QUANTIZERS,
    "kd_loss": 20,
    "many": 15,
    "resnet20": 12,
    "step": 24,
}  # seconds
RANKED = 500  # images of the ranker's batch


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
        lacks=None if shutil.which("compute-sanitizer") else "compute-sanitizer is not installed",
    )


def measured(op: str, out: Path, dry: bool) -> Stage:
    """Return an op's rows, as ``daqakd bench`` has them."""
    sizes, turns, device = ((1024,), 1, "cpu") if dry else (SIZES, 5, "cuda")
    dtypes, images = (DTYPES[:1], 4) if dry else (DTYPES, 128 if op == "step" else RANKED)
    asked = ((op,), sizes, dtypes, device, turns, images)
    code = "from pathlib import Path; from daqakd.bench.run import bench_into;"
    code += f" bench_into(Path({str(out)!r}), *{asked!r})"
    return Stage(f"verifies and times {op} by everybody", [sys.executable, "-c", code], OPS[op])


def script(name: str, says: str, seconds: float, out: Path, *options: str) -> Stage:
    """Return a script of this folder."""
    command = [sys.executable, "-m", f"benchmarks.bench_{name}", "--out", str(out), *options]
    return Stage(says, command, seconds)


def ranked(out: Path, dry: bool, *options: str) -> Stage:
    """Return whole rankings, each in a process of its own."""
    few = ["--runs", "2", *(["--images", "400"] if dry else [])]
    return script("ranking", "ranks seven strategies", 40, out, *few, *options)


def real_images(out: Path, dry: bool) -> Stage:
    """Return the rankings of CIFAR-10, which has to be on the disk."""
    root, stage = os.environ.get("DAQAKD_DATA"), ranked(out, dry, "--data", "cifar10")
    if root is None:
        return replace(stage, lacks="DAQAKD_DATA is not set")
    held = (Path(root) / "cifar10" / "train").is_dir()
    return stage if held else replace(stage, lacks=f"DAQAKD_DATA: {root} has no cifar10/train")


def stages(parts: Path, dry: bool) -> dict[str, Stage]:
    """Return the stages by name, in order; each leaves its rows in its own folder of ``parts``."""
    workers = min(8, os.cpu_count() or 1)  # compiling Triton's kernels takes most of the time
    spread = ["-n", str(workers), "--timeout-method=thread"] if find_spec("xdist") else []
    build = [sys.executable, "setup.py", "build_ext", "--inplace"]
    turns = ["--turns", "1"] if dry else []
    classes, little = (["--classes", "10"], ["--batch", "4", "--steps", "2"]) if dry else ([], [])
    walked = {"DAQAKD_BUILD": "none"} if dry else {}
    shared = "small and (augmentation or kd_loss or many)"
    return {
        "build": Stage("compiles the libraries", build, 80, walked),
        "tests": Stage("runs the GPU tests", [*pytest(dry), *spread], 90),
        "memcheck": sanitized("memcheck", "small and not cmi_sums", dry, 35),
        "racecheck": sanitized("racecheck", shared, dry, 20),
        **{op: measured(op, parts / op, dry) for op in OPS},
        "cmi": script("cmi", "times ranking statistics", 15, parts / "cmi", *turns, *classes),
        "share": script("share", "times augmentation beside a training step", 20, parts / "share",
                        *turns, *little),
        "ranking": ranked(parts / "ranking", dry),
        "cifar10": real_images(parts / "cifar10", dry),
    }  # fmt: skip
