"""Groups of options that several commands share.

A group is a configuration of the library itself, shown under the names of its fields.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from .._errors import InputError
from ..augment import InputSpec, ResizedCrop
from ..augment.inputs import Clean
from ..functional._checks import Semantics
from ..quant import LayerSpec
from ..ranking import RankConfig, SearchConfig
from ..train import TrainConfig
from ..train.store import ModelFile

METAVARS = {int: "INT", float: "FLOAT", str: "NAME", Path: "PATH"}
METAVARS |= {tuple[str, ...]: "NAME [NAME ...]"}
ALIASES = {"weight_bits": "-w", "act_bits": "-a", "method": "-m"}
# the fields of LayerSpec that the command line shows and model files keep
QUANTIZE: tuple[str, ...] = ("weight_bits", "weight_levels", "act_bits")
QUANTIZE += ("method", "weight_method", "act_method")
QUANTIZE += ("flavour", "per_channel", "first_last", "delta", "save")
Data = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
Device = Literal["auto", "cpu", "cuda"]


def optional(metavar: str) -> Any:
    """Show an option that may be left out by its value's name alone."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


OptionalInt = Annotated[int | None, optional("INT")]
OptionalName = Annotated[str | None, optional("NAME")]
OptionalPath = Annotated[Path | None, optional("PATH")]
OptionalChannels = Annotated[tuple[float, float, float] | None, optional("R G B")]
OptionalClean = Annotated[Clean | None, optional("{middle,whole}")]
CROP_OPTIONS = {"size": "input_size", "scale": "crop_scale", "jitter": "jitter"}


def shown(name: str, hint: Any, default: Any, hidden: bool = False, help: str | None = None) -> Any:
    """Return the annotation that shows a field: its short name, and no "None" for a value."""
    marks: list[Any] = [tyro.conf.Suppress] if hidden else []
    if help is not None:
        marks.append(tyro.conf.arg(help=help))
    inner = [one for one in get_args(hint) if one is not type(None)]
    if get_origin(hint) is UnionType and len(inner) < len(get_args(hint)):
        hint_of_default = "" if default is None else None
        metavar = METAVARS[inner[0]]
        marks.append(tyro.conf.arg(metavar=metavar, help_behavior_hint=hint_of_default))
    if name in ALIASES:
        marks.append(tyro.conf.arg(aliases=[ALIASES[name]]))
    return Annotated[hint, *marks] if marks else hint


def group(config: type, *hidden: str) -> Any:
    """Return a configuration as a group of options; ``hidden`` fields come from elsewhere."""
    hints = get_type_hints(config)
    kinds: list[tuple[str, Any, Any]] = []
    for f in fields(config):
        kind = shown(f.name, hints[f.name], f.default, f.name in hidden)
        kinds.append((f.name, kind, field(default=f.default)))
    made = make_dataclass(config.__name__, kinds, bases=(config,), frozen=True, kw_only=True)
    return Annotated[made, tyro.conf.OmitArgPrefixes]


if TYPE_CHECKING:
    RankGroup = RankConfig
    UntimedRankGroup = RankConfig
    SearchGroup = SearchConfig
    TrainGroup = TrainConfig
    LayerGroup = LayerSpec
else:
    RankGroup = group(RankConfig, "seed", "workers")
    UntimedRankGroup = group(RankConfig, "seed", "workers", "budget")  # a command has its own
    SearchGroup = group(SearchConfig, "seed", "workers")
    TrainGroup = group(TrainConfig, "seed", "workers")
    LayerGroup = group(LayerSpec, *(f.name for f in fields(LayerSpec) if f.name not in QUANTIZE))


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return options by name with the options of groups among them; a command's own win."""
    groups = [vars(value) for value in values.values() if is_dataclass(value)]
    below = {k: v for one in groups for k, v in flat(one).items()}
    return below | {k: v for k, v in values.items() if not is_dataclass(v)}


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """How pixels become inputs: ``InputSpec``, where the teacher's file does not say it."""

    mean: OptionalChannels = None
    """Per-channel mean of inputs in [0, 1]; default: the teacher file's, else ImageNet's."""
    std: OptionalChannels = None
    """Per-channel standard deviation; default as for --mean."""
    crop: Annotated[Literal["pad", "resized"] | None, optional("{pad,resized}")] = None
    """Random crop before each strategy: pad shifts the image by up to an eighth; resized takes a
    random box, resized to --input-size, then colour jitter. Default: the teacher file's, else pad.
    """
    input_size: OptionalInt = None
    """Side that the network sees with --crop resized; default: the teacher file's, else 224.
    Clean images are resized to 8/7 of it, and the middle is kept; those of this size stay whole."""
    crop_scale: Annotated[tuple[float, float] | None, optional("LOW HIGH")] = None
    """Fraction of the image that a box holds; default: the teacher file's, else 0.08 1."""
    jitter: Annotated[tuple[float, float, float, float] | None, optional("B C S H")] = None
    """Jitter of brightness, contrast, saturation and hue with --crop resized, 0 0 0 0 for none;
    default: the teacher file's, else 0.2 0.2 0.2 0.1."""
    clean: OptionalClean = None
    """Images that a teacher is checked and models are tested on with --crop resized: the middle, or
    the whole of them at 8/7 of --input-size, as the paper's code does (256 instead of 224);
    default: the teacher file's, else the middle."""
    semantics: Semantics = InputSpec.semantics
    """Whose pixels the image operations equal: Pillow's, or torchvision's on tensors."""

    def changes(self, file: ModelFile | None = None) -> dict[str, Any]:
        """Return the fields of ``InputSpec`` as the options say, or else the teacher's file."""
        known = {} if file is None else file.inputs
        pipeline = self._pipeline(known.get("pipeline"))
        clean = self.clean or (known.get("clean") if pipeline else None)
        return {
            "mean": self.mean or known.get("mean"),
            "std": self.std or known.get("std"),
            "pipeline": pipeline,
            "semantics": self.semantics,
            "clean": clean or InputSpec.clean,
        }

    def _pipeline(self, known: ResizedCrop | None) -> ResizedCrop | None:
        given = {name: getattr(self, option) for name, option in CROP_OPTIONS.items()}
        changes = {name: value for name, value in given.items() if value is not None}
        fallback = ResizedCrop() if self.crop == "resized" else None
        pipeline = None if self.crop == "pad" else known or fallback
        if pipeline is not None:
            return changed(pipeline, changes)
        asked = {CROP_OPTIONS[name]: value for name, value in changes.items()}
        asked |= {} if self.clean is None else {"clean": self.clean}
        if asked:
            option, value = next(iter(asked.items()))
            raise InputError(
                f"{option}: {value} asked for, but only resized crops have it; add --crop resized,"
                f" or leave --{option.replace('_', '-')} out"
            )
        return None


def changed(pipeline: ResizedCrop, changes: dict[str, Any]) -> ResizedCrop:
    """Return the pipeline with other values; errors name the options they come from."""
    try:
        return replace(pipeline, **changes)
    except InputError as error:
        name, _, rest = str(error).partition(":")
        raise InputError(f"{CROP_OPTIONS.get(name, name)}:{rest}") from error
