"""Options of the commands that rank and train, and their steps, whose files are made once."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from torch import nn

from .. import _console, _ranks
from .._errors import InputError
from ..augment import get_strategy
from ..data import Dataset
from ..losses import LOSSES
from ..quant import quantize
from ..ranking import RankConfig, Ranking, rank
from ..ranking.job import count_images
from ..train import TrainConfig, distill, teach
from ..train.averaging import lent
from ..train.identity import check_finished
from ..train.schedule import scaled
from ..train.store import ModelFile, read_model_file, save_model, save_packed
from ._job import HOLDOUT, JobOptions, check_strategy, chosen_device
from ._options import QUANTIZE, LayerGroup, OptionalName, RankGroup, TrainGroup, optional
from ._recipe import check_scale
from ._start import check_start, own_start, seeded, student_name
from ._widths import read_widths

PACKED = "student.packed"
WIDTHS = ("weight_bits", "act_bits")


@dataclass(frozen=True, kw_only=True)
class RankOptions(JobOptions):
    """Options of the commands that rank."""

    ranking: RankGroup = RankGroup()

    @property
    def rank_config(self) -> RankConfig:
        """The whole configuration of the ranking."""
        return replace(self.ranking, seed=self.seed, workers=self.workers)

    def check(self, file: ModelFile | None) -> None:
        """Check the ranking's options too."""
        super().check(file)
        self.rank_config.check()

    def check_data(self, dataset: Dataset, file: ModelFile | None) -> None:
        """Check that there are images enough to rank."""
        count_images(dataset, self.ranking.images)


@dataclass(frozen=True, kw_only=True)
class StudentOptions(RankOptions):
    """Options of the commands that train a student."""

    strategy: str = "auto"
    """The student's augmentation; auto ranks first and takes the winner."""
    holdout: float = HOLDOUT
    """Fraction of the training images kept for validation."""
    bits: Annotated[Path | None, optional("FILE.toml")] = None
    """Other widths for single layers: lines of "name or glob" = [weight bits, activation bits], or
    = "fp" for layers that stay in full precision, also for one of the two."""
    exclude: tuple[str, ...] = ()
    """Names or globs of layers that stay in full precision."""
    recipe: OptionalName = None
    """A published experiment, whose options stand below those of this line; daqakd recipes."""
    scale: float = 1.0
    """Fraction of all epochs to train, the schedules with them, one epoch at least."""
    student_model: OptionalName = None
    """The student's model, as for --model; by default the teacher's."""
    init: Annotated[str | None, optional("teacher|random|PATH")] = None
    """What the student starts from before it is quantized: its teacher, random weights by --seed,
    or a full-precision file of its own model; default: random where it is of another model."""
    training: TrainGroup = TrainGroup()
    quantization: LayerGroup = LayerGroup()

    @property
    def quantize_options(self) -> dict[str, Any]:
        """The arguments of ``quantize``, as the student's file keeps them."""
        widths = {} if self.bits is None else read_widths(self.bits)
        if self.exclude:
            widths["exclude"] = [*widths.get("exclude", []), *self.exclude]
        values = {name: getattr(self.quantization, name) for name in QUANTIZE}
        return {k: v for k, v in values.items() if v is not None or k in WIDTHS} | widths

    @property
    def train_config(self) -> TrainConfig:
        """The whole configuration of the student's training."""
        return scaled(replace(self.training, seed=self.seed, workers=self.workers), self.scale)

    def check(self, file: ModelFile | None) -> None:
        """Check the student's options too."""
        super().check(file)
        check_scale(self.scale)
        check_strategy(self.strategy)
        check_start(self, file)
        self._check_quantization()
        self.train_config.check()
        self._check_mixing()

    def _check_mixing(self) -> None:
        """Raise InputError where a loss would get mixed images, or may after a ranking."""
        kd = self.training.kd
        if kd is None or LOSSES[kd].takes_mixed_labels:
            return
        asked = self.ranking.names if self.strategy == "auto" else [self.strategy]
        mixing = [name for name in asked if get_strategy(name).mixing is not None]
        if mixing:
            raise InputError(
                f"kd: {kd} is not defined for images mixed from two, as {mixing[0]} mixes them;"
                " name others by --strategies, or one by --strategy"
            )

    def _check_quantization(self) -> None:
        self.quantization.check()
        if self.bits is not None:
            read_widths(self.bits)
        elif all(getattr(self.quantization, name) is None for name in WIDTHS):
            raise InputError(
                "weight_bits: full precision, and so are the activations: nothing is left to"
                " quantize; lower -w or -a below 32, or name layers in --bits"
            )

    def check_data(self, dataset: Dataset, file: ModelFile | None) -> None:
        """Check that the student can start, and the images of a ranking where one is asked for."""
        own_start(self, file, dataset)
        if self.strategy == "auto":
            super().check_data(dataset, file)


def teach_into(options: JobOptions, dataset: Dataset, config: TrainConfig, strategy: str) -> Path:
    """Train a teacher unless the run directory has it; return its file."""
    path = options.out / "teacher.safetensors"
    if not path.exists():
        name = options.model_name(None)
        model = seeded(name, dataset, config.seed, chosen_device(options.device))
        result = teach(
            model, dataset, strategy=strategy, config=config, run_dir=options.out, quiet=False
        )
        save_model(path, result.model, name, dataset, strategy=strategy)
    else:
        check_finished(path, "teacher", dataset)
    _ranks.wait()
    _console.say(f"teacher: {path}")
    return path


def rank_into(options: RankOptions, teacher: nn.Module, dataset: Dataset) -> Ranking:
    """Rank, show the table, write the files."""
    ranking = rank(teacher, dataset, options.rank_config, run_dir=options.out, quiet=False)
    ranking.save(options.out)
    _console.say(ranking.table)
    return ranking


def choose_strategy(options: StudentOptions, teacher: nn.Module, dataset: Dataset) -> str:
    """Return the strategy to train with, ranking when it is ``auto``."""
    if options.strategy != "auto":
        return get_strategy(options.strategy).name
    ranking = rank_into(options, teacher, dataset)
    others = f"; tied with it: {', '.join(ranking.tied)}" if ranking.tied else ""
    _console.say(f"strategy: {ranking.best}, the lowest score{others}")
    return ranking.best


def train_into(
    options: StudentOptions, file: ModelFile, teacher: nn.Module, dataset: Dataset
) -> Path:
    """Choose the strategy and train the student unless the run directory has it."""
    path, name = options.out / "student.safetensors", student_name(options, file)
    if not path.exists():
        start = own_start(options, file, dataset)
        _train_into(path, options, name, teacher if start is None else start, teacher, dataset)
    else:
        check_finished(path, "student", dataset, teacher)
    if _ranks.is_writer():
        pack_into(options.out, name)
    _ranks.wait()
    return path


def _train_into(
    path: Path,
    options: StudentOptions,
    name: str,
    start: nn.Module,
    teacher: nn.Module,
    dataset: Dataset,
) -> None:
    """Choose the strategy, train the student, keep it and its other states."""
    recipe = options.quantize_options
    student = quantize(start, **recipe)
    strategy = choose_strategy(options, teacher, dataset)
    result = distill(
        student,
        teacher,
        dataset,
        strategy=strategy,
        config=options.train_config,
        run_dir=options.out,
        quiet=False,
    )
    save_model(path, result.model, name, dataset, recipe, strategy)
    for kind, values in result.kept.items():
        with lent(result.model, values):
            beside = path.with_suffix(f".{kind}.safetensors")
            save_model(beside, result.model, name, dataset, recipe, strategy)


def pack_into(out: Path, name: str) -> None:
    """Write the student's packed form unless the run directory has it."""
    path = out / f"{PACKED}.safetensors"
    if not path.exists():
        student = read_model_file(out, "student")
        size, full = save_packed(path, student, name), student.path.stat().st_size
        _console.say(f"packed student: {path}, {size:,} bytes (unpacked {full:,})")
