"""ONNX files as modules, run by onnxruntime."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._arguments import path_of
from .._errors import InputError, first_line


class OnnxModel(nn.Module):
    """The model of an ONNX file, on the CPU, for inference.

    Args:
        path: of the file.

    Raises:
        InputError: no such file, one that onnxruntime does not take, or no onnxruntime.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        place = path_of("path", path)
        if not place.is_file():
            raise InputError(f"path: {place} is no file; write one by daqakd.export_onnx")
        if find_spec("onnxruntime") is None:
            raise InputError("onnx: needs onnxruntime; pip install 'daqakd[onnx]'")
        import onnxruntime

        try:
            self.session: Any = onnxruntime.InferenceSession(
                str(place), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors have no common base
            raise InputError(
                f"path: onnxruntime cannot run {place} ({first_line(error)}); export it again, with"
                " another opset where it names one"
            ) from error
        self.names = [given.name for given in self.session.get_inputs()]

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the first output for inputs in the file's order."""
        values = [x.detach().cpu().contiguous().numpy() for x in inputs]
        outputs = self.session.run(None, dict(zip(self.names, values, strict=True)))
        return torch.from_numpy(outputs[0])
