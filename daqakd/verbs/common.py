"""What the verbs share: device, data, teacher, the run directory."""

from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import options
from .._errors import InputError
from .._files import write_json
from ..augment import PAPER, ResizedCrop, get_strategy
from ..data import Dataset, load
from ..models import find as find_model
from ..quant import quantize
from ..ranking.anytime import Anytime
from ..ranking.halving import check_compositions
from ..train import TrainConfig
from ..train.config import settle
from ..train.environment import environment
from ..train.store import ModelFile, load_model

DEFAULT_MODEL = "resnet20"
PACKED = "student.packed"
NOT_IN_CONFIG = {"out", "device", "workers", "checkpoint_seconds", "budget"}
CROP_OPTIONS = {"size": "input_size", "scale": "crop_scale", "jitter": "jitter"}


def device_of(choice: str) -> torch.device:
    """Return the device to compute on."""
    if choice == "cuda" and not torch.cuda.is_available():
        raise InputError("device: cuda was asked for, but torch sees no GPU; see daqakd doctor")
    use_gpu = choice != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if use_gpu else "cpu")


def data_of(verb: options.Common, file: ModelFile | None = None) -> Dataset:
    """Load the data set, normalised as the options or the teacher's file say."""
    holdout = getattr(verb, "holdout", 0.1)
    dataset = load(verb.data, size=verb.size, holdout=holdout, seed=verb.seed)
    mean = verb.mean or (file.channels("mean") if file else None)
    std = verb.std or (file.channels("std") if file else None)
    return dataset.normalised(mean, std)


def teacher_of(
    file: ModelFile, name: str | None, dataset: Dataset, device: torch.device
) -> nn.Module:
    """Load the teacher onto the device."""
    return load_model(file, name or file.model or DEFAULT_MODEL, dataset.num_classes).to(device)


def _changed(pipeline: ResizedCrop, changes: dict[str, Any]) -> ResizedCrop:
    """Return the pipeline with other values; errors name the options they come from."""
    try:
        return replace(pipeline, **changes)
    except InputError as error:
        name, _, rest = str(error).partition(":")
        raise InputError(f"{CROP_OPTIONS.get(name, name)}:{rest}") from error


def resized_to(input_size: int) -> ResizedCrop:
    """Return the pipeline of ``--input-size`` alone, for clean images."""
    return _changed(ResizedCrop(), {"size": input_size})


def pipeline_of(verb: options.Common, file: ModelFile | None = None) -> ResizedCrop | None:
    """Return what happens before a strategy, as the options say, or else the teacher's file."""
    given = {name: getattr(verb, option) for name, option in CROP_OPTIONS.items()}
    changes = {name: value for name, value in given.items() if value is not None}
    pipeline = ResizedCrop() if verb.crop == "resized" else None
    if verb.crop != "pad" and file is not None:
        pipeline = file.pipeline or pipeline
    if pipeline is not None:
        return _changed(pipeline, changes)
    if changes:
        name, value = next(iter(changes.items()))
        option = CROP_OPTIONS[name]
        raise InputError(
            f"{option}: {value} asked for, but only resized crops have it; add --crop resized, or"
            f" leave --{option.replace('_', '-')} out"
        )
    return None


def views_of(verb: options.Common, file: ModelFile | None = None) -> dict[str, Any]:
    """Return the arguments ``pipeline`` and ``semantics`` of everything that reads images."""
    return {"pipeline": pipeline_of(verb, file), "semantics": verb.semantics}


def check(verb: options.Common, file: ModelFile | None) -> None:
    """Raise InputError for names and bits that are wrong, before any long work."""
    if verb.model is not None:
        find_model(verb.model)
    chosen = [getattr(verb, key, "auto") for key in ("strategy", "teacher_strategy")]
    for name in [*getattr(verb, "strategies", ()), *chosen]:
        if name != "auto":
            get_strategy(name)
    if isinstance(verb, options.Ranking):
        early = Anytime(verb.budget, verb.until_sure)
        early.check(len(set(verb.strategies or PAPER)), verb.pac_limit)
    if isinstance(verb, options.Search):
        check_compositions(verb.compositions)
    if isinstance(verb, options.Quantization):
        quantize(nn.Identity(), **recipe_of(verb))
    if isinstance(verb, options.Train | options.Run):
        student_config(verb, file).check()
    pipeline_of(verb, file)


def _noted(values: dict[str, Any]) -> dict[str, Any]:
    """Return the options that a configuration keeps, as it keeps them."""
    kept = {k: v for k, v in values.items() if k not in NOT_IN_CONFIG}
    return {k: str(v) if isinstance(v, Path) else v for k, v in kept.items()}


def begin(verb: options.Common, name: str, file: ModelFile | None = None) -> None:
    """Open the run directory: check the options, settle the configuration, note the environment."""
    check(verb, file)
    defaults = {f.name: f.default for f in fields(verb) if f.default is not MISSING}
    settle(verb.out / "config.toml", name, _noted(asdict(verb)), _noted(defaults))
    if not (verb.out / "env.json").exists():
        write_json(verb.out / "env.json", environment())


def student_config(verb: options.Train | options.Run, file: ModelFile | None) -> TrainConfig:
    """Return the training options of a verb with this teacher."""
    values = {f.name: getattr(verb, f.name) for f in fields(TrainConfig)}
    return TrainConfig(**{**values, **views_of(verb, file)})


def recipe_of(verb: options.Quantization) -> dict[str, Any]:
    """Return the arguments of ``quantize``."""
    return {f.name: getattr(verb, f.name) for f in fields(options.Quantization)}
