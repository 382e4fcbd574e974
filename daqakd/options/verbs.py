"""One dataclass per verb of the command line; what they share comes by inheritance."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..bench.run import NUM_IMAGES, SIZES
from .groups import (
    Channels,
    Common,
    Data,
    OptionalInt,
    OptionalName,
    OptionalPath,
    Quantization,
    Ranking,
    Student,
    Teacher,
    TeacherDtype,
)

BenchOp = Literal[
    "lsq",
    "pact",
    "dorefa_activation",
    "dorefa_weight",
    "ewgs",
    "kd_loss",
    "many",
    "resnet20",
    "step",
    "augment",
]


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Show versions and which backends can run, and why the others cannot."""


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """Decode a data set once (daqakd data prepare DATA --out DIR), to files mapped into memory.

    DIR then serves as DATA of every verb, and may be larger than memory. Interrupted, the same
    command continues.
    """

    action: Annotated[Literal["prepare"], tyro.conf.Positional]
    """What to do: prepare."""
    data: Data
    """cifar10, cifar100, digits, tiny-imagenet, or a folder: train/<class>/*, and test/ or val/."""
    out: Path
    """Directory to write, new or unfinished."""
    size: OptionalInt = None
    """Resize images to this side; folders of mixed sizes need it."""
    workers: OptionalInt = None
    """Threads that decode; default: one per core."""


@dataclass(frozen=True, kw_only=True)
class Teach(Common):
    """Train the full-precision teacher."""

    strategy: str = "minimal"
    """The teacher's augmentation."""
    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 128
    """Images per step."""
    lr: float = 0.1
    """Peak learning rate (SGD with Nesterov momentum)."""
    weight_decay: float = 5e-4
    """Weight decay."""
    holdout: float = 0.1
    """Share of the training images kept for validation."""


@dataclass(frozen=True, kw_only=True)
class Rank(Ranking, Common):
    """Rank augmentation strategies from the teacher alone."""

    teacher: Path
    """Teacher: a run directory, a .safetensors file, or a .pth file with a state_dict."""


@dataclass(frozen=True, kw_only=True)
class Search(Common):
    """Rank random compositions of two operations by successive halving, to find a new strategy."""

    teacher: Path
    """Teacher: a run directory, a .safetensors file, or a .pth file with a state_dict."""
    compositions: int = 100
    """How many to draw; half of them stay in each rung, on about twice as many images."""
    images: OptionalInt = None
    """Images of the last rung, a stratified subset; default: all."""
    cmi_weight: float = 1.0
    """Weight of CMI in the score."""
    pac_weight: float = 1.0
    """Weight of PAC in the score."""
    teacher_dtype: TeacherDtype = "float32"
    """The teacher's arithmetic."""


@dataclass(frozen=True, kw_only=True)
class Train(Quantization, Student, Ranking, Common):
    """Train the low-bit student with the teacher beside it."""

    teacher: Path
    """Teacher: a run directory, a .safetensors file, or a .pth file with a state_dict."""
    strategy: str = "auto"
    """Augmentation; auto ranks first and takes the winner."""


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Measure the test accuracy of a run's student, or of a teacher on DATA."""

    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|DATA")]
    """A run directory; or, with --teacher, a data set."""
    teacher: OptionalPath = None
    """Evaluate this teacher on DATA instead of a run."""
    packed: bool = False
    """Evaluate the run's student.packed.safetensors; its outputs are the student's, bit for bit."""
    model: OptionalName = None
    """Model name of the teacher; default: the file's, else resnet20."""
    mean: Channels = None
    """Per-channel mean; default: the file's, else ImageNet's."""
    std: Channels = None
    """Per-channel standard deviation; default as for --mean."""
    size: OptionalInt = None
    """Resize images to this side."""
    input_size: OptionalInt = None
    """Side that the teacher sees: resize to 8/7 of it and keep the middle; default: as its file
    says, else the images as they are."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write one self-contained HTML page about finished runs."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Run directories; several of one teacher also give score against accuracy."""
    out: OptionalPath = None
    """The page; default: report.html in the first run."""


@dataclass(frozen=True, kw_only=True)
class Run(Teacher, Quantization, Student, Ranking, Common):
    """Do it all: teach (or take --teacher), rank, train with the winner, evaluate, report."""

    teacher: OptionalPath = None
    """An existing teacher; default: train one."""
    strategy: str = "auto"
    """The student's augmentation; auto takes the winner of the ranking."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Time the ops against eager PyTorch, torch.compile and PyTorch's own op; needs no data."""

    op: tuple[BenchOp, ...] = ("lsq", "pact", "dorefa_activation", "dorefa_weight", "ewgs")
    """Ops to measure, forward and backward.

    many is eight weights in one call, resnet20 that model's weights, step a training step of it at
    W2A2, augment a batch of 32 x 32 pixels, against torchvision image by image.
    """
    size: tuple[int, ...] = SIZES
    """Elements of the input."""
    images: int = NUM_IMAGES
    """Images of a batch, for step and augment."""
    dtype: tuple[Literal["float32", "bfloat16", "float16"], ...] = ("float32", "bfloat16")
    """Dtypes of the input."""
    turns: int = 9
    """How often every contestant is timed; the median counts."""
    out: Path = Path("runs/bench")
    """Directory of bench.json."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""


Verb = (
    Annotated[Doctor, tyro.conf.subcommand("doctor")]
    | Annotated[Prepare, tyro.conf.subcommand("data")]
    | Annotated[Teach, tyro.conf.subcommand("teach")]
    | Annotated[Rank, tyro.conf.subcommand("rank")]
    | Annotated[Search, tyro.conf.subcommand("search")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Eval, tyro.conf.subcommand("eval")]
    | Annotated[Run, tyro.conf.subcommand("run")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
)
