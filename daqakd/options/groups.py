"""Groups of options that several verbs of the command line share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ..augment import ResizedCrop
from ..train import TrainConfig

Data = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]


def _optional(metavar: str) -> Any:
    """Show an option that may be left out by its value's name alone."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


Channels = Annotated[tuple[float, float, float] | None, _optional("R G B")]
TeacherDtype = Literal["float32", "bfloat16"]
OptionalInt = Annotated[int | None, _optional("INT")]
OptionalFloat = Annotated[float | None, _optional("FLOAT")]
OptionalName = Annotated[str | None, _optional("NAME")]
OptionalPath = Annotated[Path | None, _optional("PATH")]


@dataclass(frozen=True, kw_only=True)
class Common:
    """Options that every verb on data has."""

    data: Data
    """cifar10, cifar100, digits, tiny-imagenet; a folder: train/<class>/*, and test/ or val/; or
    what daqakd data prepare wrote."""
    out: Path = Path("runs/latest")
    """Run directory; the same command on the same directory continues."""
    seed: int = 0
    """Of initial weights, splits, orders and draws."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    mean: Channels = None
    """Per-channel mean of inputs in [0, 1]; default: the teacher file's, else ImageNet's."""
    std: Channels = None
    """Per-channel standard deviation; default as for --mean."""
    size: OptionalInt = None
    """Resize images to this side; folders of mixed sizes need it."""
    model: OptionalName = None
    """Model name, or package.module:function; default: the teacher file's, else resnet20."""
    workers: OptionalInt = None
    """Processes that run registered transforms; by default chosen from the size of the set."""
    crop: Annotated[Literal["pad", "resized"] | None, _optional("{pad,resized}")] = None
    """Random crop before each strategy: pad shifts the image by up to an eighth; resized takes a
    random box, resized to --input-size, then colour jitter. Default: the teacher file's, else pad.
    """
    input_size: OptionalInt = None
    """Side that the network sees with --crop resized; default: the teacher file's, else 224.
    Clean images are resized to 8/7 of it, and the middle is kept; those of this size stay whole."""
    crop_scale: Annotated[tuple[float, float] | None, _optional("LOW HIGH")] = None
    """Share of the image that a box holds; default: the teacher file's, else 0.08 1."""
    jitter: Annotated[tuple[float, float, float, float] | None, _optional("B C S H")] = None
    """Jitter of brightness, contrast, saturation and hue with --crop resized, 0 0 0 0 for none;
    default: the teacher file's, else 0.2 0.2 0.2 0.1."""
    semantics: Literal["pil", "torchvision"] = "pil"
    """Whose pixels the image operations equal: Pillow's, or torchvision's on tensors."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Options of a ranking."""

    strategies: Annotated[tuple[str, ...], _optional("NAME [NAME ...]")] = ()
    """Strategies to rank; default: the paper's seven."""
    images: OptionalInt = None
    """Rank on a stratified subset of this many images; default: all."""
    passes: int = 1
    """Augmented passes per strategy."""
    cmi_weight: float = 1.0
    """Weight of CMI in the score."""
    pac_weight: float = 1.0
    """Weight of PAC in the score."""
    pac_limit: OptionalFloat = None
    """Take the highest CMI among strategies with PAC up to this many nats."""
    budget: OptionalFloat = None
    """Stop ranking after this many seconds; a larger budget continues."""
    until_sure: bool = False
    """Stop as soon as the best is separated from all others, and drop who is on the way."""
    teacher_dtype: TeacherDtype = "float32"
    """The teacher's arithmetic while ranking."""


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """Options of the low-bit student."""

    weight_bits: Annotated[int, tyro.conf.arg(aliases=["-w"])] = 2
    """Bits of the weights, 1 to 8."""
    act_bits: Annotated[int, tyro.conf.arg(aliases=["-a"])] = 2
    """Bits of the activations, 1 to 8."""
    method: str = "lsq"
    """Quantizer: lsq, pact, dorefa or ewgs."""
    per_channel: bool = False
    """One LSQ step per output channel of the weights."""
    first_last: Literal["8bit", "fp", "same"] = "8bit"
    """First and last layer: 8 bits, full precision, or as the rest."""


@dataclass(frozen=True, kw_only=True)
class Student(TrainConfig):
    """Options of the student's training: the training configuration itself, and the split."""

    quantizer_lr: OptionalFloat = None
    """Peak learning rate of steps, ranges and alphas; default: a tenth of --lr."""
    workers: OptionalInt = None
    """Processes that augment; default: chosen from the size of the set."""
    holdout: float = 0.1
    """Share of the training images kept for validation."""
    pipeline: Annotated[ResizedCrop | None, tyro.conf.Suppress] = None
    """Comes from --crop and the options beside it."""


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Options of the teacher's own training."""

    teacher_epochs: int = 30
    """Passes over the training images for the teacher."""
    teacher_strategy: str = "minimal"
    """The teacher's own augmentation."""
    teacher_lr: float = 0.1
    """The teacher's peak learning rate (SGD)."""
