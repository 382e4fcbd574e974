"""The stages of a GPU run: their commands, and the seconds that each may take of nine minutes.

In the order of what they are worth: right results first, then rows, then whole steps and rankings.
"""

import os
import shutil
import sys
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from daqakd.bench.registry import BENCHMARKS, NUM_IMAGES

from .stage import Stage

PYTEST = [sys.executable, "-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider"]
PYTEST += ["-W", "default"]  # other versions than CI's may warn of other things
PLUGINS: dict[str, list[str]] = {"pytest_timeout": ["--timeout-method=thread"], "xdist.plugin": []}
ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # a machine's own plugins are not asked for
BUILD_SECONDS = 105  # of the libraries, where a bundle does not bring them
RACING = "small and (augmentation or kd_loss or many)"  # kernels with shared memory
DTYPES = ("float32", "bfloat16")
# largest and smallest first: a limit cuts what says least
SIZES = (67108864, 65536, 16777216, 1048576)
SIZES_OF = {"many": SIZES[1:], "bn_act_quant": (16777216, 1048576)}  # many: of each of 8 tensors
ROUNDS, RANKER_BATCH, STEP_BATCH = 3, 500, 512  # timings of each row; images
IMAGES = {"augment": RANKER_BATCH, "kd_step": STEP_BATCH, "compiled_step": STEP_BATCH}
OPS = tuple(BENCHMARKS)
# whose compiled providers are worth a start, the longest first
COMPARED = (
    "bn_act_quant",
    "compiled_step",
    "resnet20",
    "kd_loss",
    "lsq",
    "pact",
    "dorefa_weight",
    "ewgs",
    "lsqplus",
    "seq",
    "many",
)
TRAINED = ("fp32", "lsq", "loop", "fp32-graph", "lsq-graph", "lsq-bf16")
SECONDS = {
    "libraries": 15,
    "tests": 80,
    "memcheck": 30,
    "racecheck": 15,
    "lsq": 18,
    "pact": 16,
    "dorefa_activation": 12,
    "dorefa_weight": 16,
    "ewgs": 10,
    "lsqplus": 8,
    "seq": 12,
    "codes": 8,
    "bn_act_quant": 26,
    "kd_loss": 30,
    "many": 16,
    "resnet20": 18,
    "step": 18,
    "kd_step": 25,
    "compiled_step": 31,
    "augment": 20,
    "share": 14,
    "training": 20,
    "cmi": 8,
    "ranking": 26,
    "cifar10": 20,
    "ncu": 28,
}


@dataclass(frozen=True)
class Plan:
    """Where a run's stages write, each to a folder of ``scratch``, and whether there is a GPU."""

    scratch: Path
    dry: bool

    def folder(self, name: str) -> Path:
        """Return where a stage leaves its rows."""
        return self.scratch / name

    def module(self, stage: str, name: str, purpose: str, *options: object) -> Stage:
        """Return a module of this folder as a stage."""
        command = [sys.executable, "-m", f"benchmarks.{name}", *map(str, options)]
        return Stage(purpose, command, SECONDS.get(stage, 0))

    def libraries(self) -> Stage:
        """Return the check of the libraries, which builds what a bundle does not bring."""
        options = ("cpu", "--look") if self.dry else ("cuda",)
        purpose = "makes sure that every kernel can run"
        stage = self.module("libraries", "gpu_libraries", purpose, *options)
        return replace(stage, seconds=stage.seconds + BUILD_SECONDS)

    def compiled(self) -> Stage:
        """Return what fills torch's cache of compiled graphs beside the tests."""
        options = ["--sizes", *SIZES, "--dtypes", *DTYPES, "--images", STEP_BATCH]
        purpose = "compiles what ours is compared with"
        stage = self.module("compiled", "gpu_warm", purpose, *COMPARED, *options)
        missing = "torch.compile is switched off" if self.dry else None
        return replace(stage, beside=True, missing=missing)

    def pytest(self, *options: str) -> list[str]:
        """Return the command of the GPU tests."""
        files = sorted(str(path) for path in Path("tests/gpu").glob("test_*.py"))
        plugins = [
            word
            for plugin, flags in PLUGINS.items()
            if find_spec(plugin.partition(".")[0])
            for word in ("-p", plugin, *flags)
        ]
        marks = "not gpu and not slow" if self.dry else "gpu"
        return [*PYTEST, *plugins, *files, "-m", marks, *options]

    def tests(self) -> Stage:
        """Return all GPU tests; compiling Triton's kernels takes most of their time."""
        workers = min(8, os.cpu_count() or 1)
        parallel = ["-n", str(workers), "--maxschedchunk", "2"] if find_spec("xdist") else []
        purpose = "runs the GPU tests, each op's first before any op's second"
        return Stage(purpose, self.pytest(*parallel), SECONDS["tests"], ALONE)

    def sanitized(self, tool: str, tests: str) -> Stage:
        """Return tests under compute-sanitizer, whose errors fail the stage."""
        found = shutil.which("compute-sanitizer")
        start = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9"]
        return Stage(
            f"{tool}: looks for wild or racing memory accesses in the small tests",
            [*start, *self.pytest("-k", tests)],
            SECONDS[tool],
            # a cached block's neighbours hide what is outside
            ALONE | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
            missing=None if found else "compute-sanitizer is not installed",
        )

    def measured(self, op: str) -> Stage:
        """Return an op's rows, as ``daqakd bench`` has them."""
        sizes, images = SIZES_OF.get(op, SIZES), IMAGES.get(op, NUM_IMAGES)
        arguments: tuple[object, ...] = ((op,), sizes, DTYPES, "cuda", ROUNDS, images)
        if self.dry:
            arguments = ((op,), (1024,), DTYPES[:1], "cpu", 1, 4)
        code = "from pathlib import Path; from daqakd.bench.run import bench_into;"
        code += f" bench_into(Path({str(self.folder(op))!r}), *{arguments!r})"
        command = [sys.executable, "-c", code]
        return Stage(f"verifies and times {op}", command, SECONDS[op], alone=True)

    def script(self, stage: str, name: str, purpose: str, *options: object) -> Stage:
        """Return a script with rows of its own."""
        out = ("--out", self.folder(stage))
        return replace(self.module(stage, name, purpose, *out, *options), alone=True)

    def ranking(self, stage: str, *options: object) -> Stage:
        """Return whole rankings, each in a process of its own."""
        some = ("--images", 400) if self.dry else ()
        purpose = "ranks seven strategies"
        return self.script(stage, "bench_ranking", purpose, "--runs", 2, *some, *options)

    def training(self) -> Stage:
        """Return whole training, recorded as a graph and not, beside a plain loop."""
        size = ("--batch", STEP_BATCH, "--steps", 12, "--turns", 2)
        size = ("--batch", 4, "--steps", 2, "--turns", 1) if self.dry else size
        found = TRAINED[:3] if self.dry else TRAINED
        options = ("--device", "cpu" if self.dry else "cuda", "--models", "resnet20", *size)
        purpose = "times whole training"
        return self.script("training", "bench_training", purpose, *options, "--only", *found)

    def real_images(self) -> Stage:
        """Return the rankings of CIFAR-10, which has to be on the disk."""
        root, stage = os.environ.get("DAQAKD_DATA"), self.ranking("cifar10", "--data", "cifar10")
        if root is None:
            return replace(stage, missing="DAQAKD_DATA is not set")
        if (Path(root) / "cifar10" / "train").is_dir():
            return stage
        return replace(stage, missing=f"DAQAKD_DATA: {root} has no cifar10/train")

    def ncu(self) -> Stage:
        """Return a look into the slowest kernels."""
        purpose = "profiles what is slowest against its floor"
        stage = self.script("ncu", "gpu_ncu", purpose, "--rows", self.scratch)
        return replace(stage, missing=None if shutil.which("ncu") else "ncu is not installed")


def stages(scratch: Path, dry: bool) -> dict[str, Stage]:
    """Return the stages by name, in order."""
    plan = Plan(scratch, dry)
    rounds = ("--turns", 1) if dry else ()
    classes, steps = (("--classes", 10), ("--batch", 4, "--steps", 2)) if dry else ((), ())
    return {
        "libraries": plan.libraries(),
        "compiled": plan.compiled(),
        "tests": plan.tests(),
        "memcheck": plan.sanitized("memcheck", "small and not cmi_sums"),
        "racecheck": plan.sanitized("racecheck", RACING),
        **{op: plan.measured(op) for op in OPS},
        "share": plan.script(
            "share", "bench_share", "times augmentation beside a step", *rounds, *steps
        ),
        "training": plan.training(),
        "cmi": plan.script("cmi", "bench_cmi", "times ranking's statistics", *rounds, *classes),
        "ranking": plan.ranking("ranking"),
        "cifar10": plan.real_images(),
        "ncu": plan.ncu(),
    }
