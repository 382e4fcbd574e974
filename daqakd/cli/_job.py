"""What the commands on data share: their options, the run directory, data set, teacher, device."""

from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import nn

from .._errors import InputError
from .._files import write_json
from ..augment import InputSpec, get_strategy
from ..data import Dataset, load
from ..models import find as find_model
from ..quant import LayerSpec
from ..train.environment import environment
from ..train.options_file import keep_options
from ..train.store import ModelFile, load_model
from ._options import RECIPE, Data, Device, InputOptions, OptionalInt, OptionalName, flat

DEFAULT_MODEL = "resnet20"
HOLDOUT = 0.1
NOT_SHOWN = {f.name for f in fields(LayerSpec)} - set(RECIPE)
NOT_KEPT = {"out", "device", "workers", "checkpoint_seconds", "budget"}


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """Options of every command that works on data in a run directory."""

    data: Data
    """cifar10, cifar100, digits, tiny-imagenet; a folder: train/<class>/*, and test/ or val/; or
    what daqakd data prepare wrote."""
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
    input: Annotated[InputOptions, tyro.conf.OmitArgPrefixes] = InputOptions()

    def check(self, file: ModelFile | None) -> None:
        """Raise InputError for options that are wrong with this teacher, before any long work."""
        if self.model is not None:
            find_model(self.model)
        InputSpec().with_changes(**self.input.changes(file))

    def model_name(self, file: ModelFile | None) -> str:
        """Return the model's name, as the option or the teacher's file says."""
        return self.model or (file.model if file else None) or DEFAULT_MODEL


def check_strategy(name: str) -> None:
    """Raise InputError where there is no such strategy; ``auto`` is chosen by a ranking."""
    if name != "auto":
        get_strategy(name)


def device_of(choice: str) -> torch.device:
    """Return the device to compute on."""
    if choice == "cuda" and not torch.cuda.is_available():
        raise InputError("device: cuda was asked for, but torch sees no GPU; see daqakd doctor")
    use_gpu = choice != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if use_gpu else "cpu")


def load_data(
    options: JobOptions, file: ModelFile | None = None, holdout: float = HOLDOUT
) -> Dataset:
    """Load the data set, with inputs as the options or the teacher's file say."""
    dataset = load(options.data, size=options.size, holdout=holdout, seed=options.seed)
    return dataset.with_inputs(**options.input.changes(file))


def load_teacher(options: JobOptions, file: ModelFile, dataset: Dataset) -> nn.Module:
    """Load the teacher onto the device."""
    model = load_model(file, options.model_name(file), dataset.num_classes)
    return model.to(device_of(options.device))


def _kept(values: dict[str, Any]) -> dict[str, Any]:
    """Return the options that ``config.toml`` keeps, as it keeps them."""
    kept = {k: v for k, v in values.items() if k not in NOT_KEPT and k not in NOT_SHOWN}
    if "strategies" in kept:
        kept["strategies"] = kept["strategies"] or ()  # the paper's are an empty list there
    return {k: str(v) if isinstance(v, Path) else v for k, v in kept.items()}


def begin(options: JobOptions, command: str, file: ModelFile | None = None) -> None:
    """Open the run directory: check the options, keep them, write down the environment."""
    options.check(file)
    defaults = {f.name: f.default for f in fields(options) if f.default is not MISSING}
    before, values = _kept(flat(defaults)), _kept(flat(vars(options)))
    # TOML has no None, and a missing option is one of an older version, at its default
    values |= {k: "None" for k, v in before.items() if v is not None and values[k] is None}
    keep_options(options.out / "config.toml", command, values, before)
    if not (options.out / "env.json").exists():
        write_json(options.out / "env.json", environment())
