"""Model files: our own safetensors with everything needed to use them, and anybody's teachers."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._arguments import path_of
from .._errors import InputError, naming
from .._files import damaged, read_tensors, write_tensors
from ..augment import InputSpec, ResizedCrop
from ..data import Dataset
from ..export import packed
from ..export.fitting import RECIPE, loaded
from ..export.foreign import state_of
from ..models import BUILDERS, build

PICKLES = {".pth", ".pt", ".th", ".tar", ".ckpt", ".bin"}
PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02\x8a")  # of torch.save: a zip archive, before it a pickle


@dataclass(frozen=True)
class ModelFile:
    """Tensors of a model and what the file says about them."""

    path: Path
    tensors: dict[str, Tensor]
    facts: dict[str, str] = field(default_factory=dict)

    def channels(self, name: str) -> tuple[float, ...] | None:
        """Return ``mean`` or ``std`` when the file carries it."""
        text = self.facts.get(name)
        return None if text is None else tuple(float(v) for v in text.split(","))

    @property
    def pipeline(self) -> ResizedCrop | None:
        """What the model's training images went through, when the file carries it.

        Raises:
            InputError: it is damaged.
        """
        text = self.facts.get("pipeline")
        try:
            return None if text is None else ResizedCrop(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise InputError(
                f"{self.path}: its pipeline cannot be read ({error}); write the file again by the"
                " command that made it"
            ) from error

    @property
    def inputs(self) -> dict[str, Any]:
        """The fields of ``InputSpec`` that the file carries."""
        found = {
            "mean": self.channels("mean"),
            "std": self.channels("std"),
            "pipeline": self.pipeline,
            "semantics": self.facts.get("semantics"),
            "clean": self.facts.get("clean"),
        }
        return {name: value for name, value in found.items() if value is not None}

    @property
    def model(self) -> str | None:
        """The model's name, where the file carries one of ours: a function's is not taken.

        It is code, and nothing that a file names is imported.
        """
        name = self.facts.get("model")
        return name if name in BUILDERS else None

    @property
    def num_classes(self) -> int:
        """The number of classes that the file carries.

        Raises:
            InputError: it carries none.
        """
        try:
            return len(json.loads(self.facts["classes"]))
        except (ValueError, KeyError, TypeError) as error:
            raise damaged(self.path, "its classes cannot be read") from error

    def name(self, asked: str | None, default: str | None = None) -> str:
        """Return the model's name, as ``asked``, or else as the file says, or else the default.

        Raises:
            InputError: nothing says it, or the file names a function, which is not imported.
        """
        chosen, told = self.model if asked is None else asked, self.facts.get("model", "")
        if chosen is None and ":" in told:
            raise InputError(
                f"{self.path}: its model is the function {told}, which is code and is imported only"
                f" where you name it; if you trust it, pass --model {told}"
            )
        if chosen is None and default is None:
            raise InputError(f"{self.path}: does not say which model it is; pass --model")
        return str(default) if chosen is None else chosen


def save_model(
    path: Path,
    model: nn.Module,
    name: str | None,
    dataset: Dataset,
    recipe: Mapping[str, Any] | None = None,
    strategy: str | None = None,
) -> None:
    """Write weights with model name, classes, normalisation and, for a student, its recipe.

    ``recipe`` holds the arguments of :func:`daqakd.quantize`, ``strategy`` the augmentation; the
    data set's ``inputs`` go in whole.
    """
    inputs = dataset.inputs
    facts = {
        "model": name or type(model).__name__,
        "classes": json.dumps(dataset.classes),
        "mean": ",".join(map(str, inputs.mean)),
        "std": ",".join(map(str, inputs.std)),
        "dataset": dataset.name,
    }
    if recipe is not None:
        facts[RECIPE] = json.dumps(recipe)
    if strategy is not None:
        facts["strategy"] = strategy
    if inputs.pipeline is not None:
        facts |= {"pipeline": json.dumps(asdict(inputs.pipeline)), "semantics": inputs.semantics}
        if inputs.clean != InputSpec.clean:
            facts["clean"] = inputs.clean
    write_tensors(path, model.state_dict(), facts)


def save_packed(path: Path, student: ModelFile, name: str | None = None) -> int:
    """Write the packed form of a student's file; return its size in bytes.

    It is made from the file alone, on the CPU, so it is the same wherever the student was trained.
    ``name`` is the model's where the file names a function.
    """
    model = load_model(student, student.model or name, student.num_classes)
    tensors, layers = packed.pack(model)
    write_tensors(path, tensors, {**student.facts, packed.FACT: layers})
    return path.stat().st_size


def _unpickle(path: Path) -> dict[str, Tensor]:
    """Read anybody's checkpoint as plain tensors; see :func:`state_of`."""
    try:
        with naming(path):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        raise InputError(
            f"{path}: cannot be loaded as plain tensors ({type(error).__name__}); save its"
            " state_dict alone, or convert it to .safetensors"
        ) from error
    return state_of(content, path)


def _is_pickle(path: Path) -> bool:
    """Whether a file is torch's, by its suffix, or by its content where that says nothing."""
    suffix = path.suffix.lower()
    if suffix in PICKLES or suffix == ".safetensors":
        return suffix in PICKLES
    with open(path, "rb") as file:
        return file.read(4).startswith(PICKLE_STARTS)


def read_model_file(path: str | Path, kind: str = "teacher") -> ModelFile:
    """Read a run directory's model, a ``.safetensors`` file or a pickled ``state_dict``.

    Raises:
        InputError: there is no such file, or it is not a model.
    """
    place = path_of(kind, path)
    if place.is_dir():
        place = place / f"{kind}.safetensors"
    if not place.is_file():
        raise InputError(
            f"{place}: no such {kind}; pass a run directory, a .safetensors file, or a .pth file"
        )
    if _is_pickle(place):
        return ModelFile(place, _unpickle(place))
    return ModelFile(place, *read_tensors(place))


def load_model(file: ModelFile, name: str | None, classes: int) -> nn.Module:
    """Build the model the file or ``name`` says and load its weights; quantized where it is.

    A packed student computes bit for bit what the unpacked one does.

    Raises:
        InputError: another architecture or class count, or a damaged packed file.
    """
    chosen = file.name(name)
    return loaded(build(chosen, classes), file.tensors, file.facts, file.path, chosen)
