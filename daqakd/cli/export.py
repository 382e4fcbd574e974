"""``export``: a run's student as a file for other runtimes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor, nn

from .. import _console
from .._errors import InputError
from .._lock import working_in
from ..augment.clean import clean_inputs
from ..data import Dataset
from ..export import export_onnx, export_program
from ..export.qdq import INT4_OPSET
from ..train.store import load_model, save_packed
from ._job import DEFAULT_MODEL
from ._options import OptionalName, OptionalPath
from ._student import PACKED
from .eval import student_and_data

FILES = {
    "onnx": "student.onnx",
    "packed": f"{PACKED}.safetensors",
    "program": "student.pt2",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``export``."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run directory with a student."""
    format: Literal["onnx", "packed", "program"] = "onnx"
    """onnx: integer weights with QuantizeLinear and DequantizeLinear; packed: safetensors of codes,
    for daqakd.load; program: torch.export's .pt2, which needs none of this package."""
    out: OptionalPath = None
    """The file; default: student.onnx, student.packed.safetensors or student.pt2 in the run."""
    opset: int = INT4_OPSET
    """Version of ONNX's operators; below 21, 4-bit weights are int8, which onnxruntime's integer
    kernels take."""
    fold_batchnorm: bool = True
    """Make each BatchNorm part of the layer before it, where there is one."""
    model: OptionalName = None
    """Model name; a package.module:function that the file names is imported only where it is
    repeated here."""


def run(options: Options) -> None:
    """Write a run's student in another format."""
    path = options.run / FILES[options.format] if options.out is None else options.out
    file, dataset = student_and_data(options.run, "student")
    name = file.name(options.model, DEFAULT_MODEL)
    with working_in(options.run, "run"):
        if options.format == "packed":
            save_packed(path, file, name)
        else:
            _traced(options, path, load_model(file, name, dataset.num_classes), dataset)
    size, full = path.stat().st_size, file.path.stat().st_size
    _console.say(f"{options.format}: {path}, {size:,} bytes (student {full:,})")


def _traced(options: Options, path: Path, student: nn.Module, dataset: Dataset) -> None:
    """Write what is traced on images as the student sees them."""
    fold = options.fold_batchnorm
    if options.format == "onnx":
        export_onnx(student, path, _example(dataset), fold_batchnorm=fold, opset=options.opset)
    else:
        export_program(student, path, _example(dataset), fold_batchnorm=fold)


def _example(dataset: Dataset) -> Tensor:
    """Return two test images, float32 ``[2, 3, S, S]``."""
    if not len(dataset.test):
        raise InputError("run: its data set has no test images, whose size the file is made for")
    return clean_inputs(dataset.test.pixels[:2], dataset.inputs, torch.device("cpu")).contiguous()
