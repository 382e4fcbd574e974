"""What the commands on data share: their options, the run directory, data set, teacher, device."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import nn

from .. import _ranks
from .._arguments import check_side, device_of
from .._config import check_workers
from .._errors import InputError
from .._files import read_bytes, write_bytes, write_json
from .._lock import working_in
from ..augment import InputSpec, clean_inputs, get_strategy
from ..augment.draws import check_seed
from ..data import Dataset, load
from ..models import build, check_logits
from ..models import find as find_model
from ..quant import LayerSpec
from ..train.environment import environment
from ..train.options_file import check_options, keep_options
from ..train.store import ModelFile, load_model
from ._options import QUANTIZE, Data, Device, InputOptions, OptionalInt, OptionalName, flat

DEFAULT_MODEL = "resnet20"
HOLDOUT = 0.1
NOT_SHOWN = {f.name for f in fields(LayerSpec)} - set(QUANTIZE)
NOT_KEPT = {"out", "device", "workers", "checkpoint_seconds", "budget", "config", "dry_run"}
NOT_KEPT |= {"diagnose", "tensorboard"}


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """Options of every command that works on data in a run directory."""

    data: Data
    """cifar10, cifar100, digits, tiny-imagenet; a folder: train/<class>/*, and test/ or val/, or
    Parquet files as the Hugging Face Hub has them; or what daqakd data prepare wrote."""
    out: Path = Path("runs/latest")
    """Run directory; the same command on the same directory continues."""
    seed: int = 0
    """Of initial weights, splits, orders and draws."""
    device: Device = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    size: OptionalInt = None
    """Resize images to this side; folders of mixed sizes need it."""
    model: OptionalName = None
    """Model name, or package.module:function; default: the teacher file's, else resnet20."""
    workers: OptionalInt = None
    """Processes that run registered transforms; by default chosen from the size of the set."""
    dry_run: bool = False
    """Say what there is to do and how long it may take, measured on a few steps; keep nothing."""
    input: Annotated[InputOptions, tyro.conf.OmitArgPrefixes] = InputOptions()

    def check(self, file: ModelFile | None) -> None:
        """Raise InputError for options that are wrong with this teacher, before any long work."""
        if self.size is not None:
            check_side("size", self.size)
        check_workers(self)
        check_seed(self.seed)
        find_model(self.model_name(file))
        InputSpec().with_changes(**self.input.changes(file))

    def check_data(self, dataset: Dataset, file: ModelFile | None) -> None:
        """Raise InputError for options that are wrong with this data set and this teacher."""

    def model_name(self, file: ModelFile | None) -> str:
        """Return the model's name, as the option or the teacher's file says."""
        if file is None:
            return DEFAULT_MODEL if self.model is None else self.model
        return file.name(self.model, DEFAULT_MODEL)

    def new_model(self, file: ModelFile | None, dataset: Dataset) -> nn.Module:
        """Return the teacher's file's model on the device, or a new one; it must take the images.

        Raises:
            InputError: it cannot be built or loaded, or gives no logits for the data set's images.
        """
        name, device = self.model_name(file), chosen_device(self.device)
        if file is None:
            model = build(name, dataset.num_classes)
        else:
            model = load_model(file, name, dataset.num_classes)
        return on_images(model.to(device), f"model {name!r}", dataset, device)


def on_images(model: nn.Module, name: str, dataset: Dataset, device: torch.device) -> nn.Module:
    """Return a model on the device, after making sure that it gives logits for the images."""
    images = clean_inputs(dataset.train.pixels[:2], dataset.inputs, device)
    check_logits(model, images, dataset.num_classes, name)
    return model


def check_strategy(name: str) -> None:
    """Raise InputError where there is no such strategy; ``auto`` is chosen by a ranking."""
    if name != "auto":
        get_strategy(name)


def chosen_device(choice: str) -> torch.device:
    """Return the device to compute on."""
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    device = device_of(automatic if choice == "auto" else choice)
    if device.type == "cuda":
        _ranks.check_gpus()
    return device


def load_data(
    options: JobOptions, file: ModelFile | None = None, holdout: float = HOLDOUT
) -> Dataset:
    """Load the data set, with inputs as the options or the teacher's file say."""
    dataset = load(options.data, size=options.size, holdout=holdout, seed=options.seed)
    return dataset.with_inputs(**options.input.changes(file))


def _kept(values: dict[str, Any]) -> dict[str, Any]:
    """Return the options that ``config.toml`` keeps, as it keeps them."""
    kept = {k: v for k, v in values.items() if k not in NOT_KEPT and k not in NOT_SHOWN}
    if "strategies" in kept:
        kept["strategies"] = kept["strategies"] or ()  # the paper's are an empty list there
    return {k: str(v) if isinstance(v, Path) else v for k, v in kept.items()}


def options_to_keep(options: JobOptions) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options that ``config.toml`` keeps, and their defaults."""
    defaults = {f.name: f.default for f in fields(options) if f.default is not MISSING}
    before, values = _kept(flat(defaults)), _kept(flat(vars(options)))
    # TOML has no None, and a missing option is one of an older version, at its default
    values |= {k: "None" for k, v in before.items() if v is not None and values[k] is None}
    return values, before


@contextmanager
def begin(
    options: JobOptions, command: str, file: ModelFile | None = None, holdout: float = HOLDOUT
) -> Iterator[tuple[Dataset, nn.Module]]:
    """Work in the run directory: lock it, check everything, only then keep the options.

    A dry run only checks. Yields the data set and the model: the teacher's file's, or a new one.
    """
    options.check(file)
    chosen_device(options.device)
    with working_in(None if options.dry_run else options.out, "out"):
        kept = options_to_keep(options)
        check_options(options.out / "config.toml", command, *kept)
        dataset = load_data(options, file, holdout)
        options.check_data(dataset, file)
        model = options.new_model(file, dataset)
        with nullcontext() if options.dry_run else _noting(options.out, command, *kept):
            yield dataset, model


@contextmanager
def _noting(
    out: Path, command: str, values: dict[str, Any], before: dict[str, Any]
) -> Iterator[None]:
    """Keep options and environment, unless bad input ends the command before any work is kept."""
    if not _ranks.is_writer():
        yield
        return
    notes = [out / "config.toml", out / "env.json"]
    old = {path: read_bytes(path) for path in notes if path.exists()}
    present = {*out.rglob("*"), *notes}
    keep_options(notes[0], command, values, before)
    if not notes[1].exists():
        write_json(notes[1], environment())
    try:
        yield
    except InputError:
        if {*out.rglob("*")} <= present:
            for path in notes:
                if path in old:
                    write_bytes(path, old[path])
                else:
                    path.unlink(missing_ok=True)
        raise
