"""Out of training: files of students that say all that is needed to use them."""

from .batchnorm import fold_batchnorm
from .files import load, save
from .onnx_file import export_onnx
from .program import export_program
from .runtime import OnnxModel

__all__ = ["OnnxModel", "export_onnx", "export_program", "fold_batchnorm", "load", "save"]
