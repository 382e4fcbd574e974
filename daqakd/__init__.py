"""Rank data augmentations from the teacher, then train the low-bit student with the winner.

``import daqakd`` loads nothing else: torch comes with the first name that is used, and the ops
register with ``daqakd.functional``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import data, functional, losses, models, nn
    from ._errors import InputError
    from .augment import InputSpec, ResizedCrop, register_strategy, strategies
    from .backends import use_backend
    from .export import export_onnx, fold_batchnorm, load, save
    from .quant import LayerSpec, calibrate, dequantize, fuse, param_groups, quantize, summary
    from .ranking import (
        CMIState,
        RankConfig,
        Ranking,
        Search,
        SearchConfig,
        rank,
        search,
    )
    from .train import TrainConfig, distill, teach, update_delta

__version__ = "0.1.0"

_MODULES = ("data", "functional", "losses", "models", "nn")
_NAMES = {
    "_errors": ("InputError",),
    "augment": ("InputSpec", "ResizedCrop", "register_strategy", "strategies"),
    "backends": ("use_backend",),
    "export": ("export_onnx", "fold_batchnorm", "load", "save"),
    "quant": (
        *("LayerSpec", "calibrate", "dequantize", "fuse", "param_groups", "quantize", "summary"),
    ),
    "ranking": ("CMIState", "RankConfig", "Ranking", "Search", "SearchConfig", "rank", "search"),
    "train": ("TrainConfig", "distill", "teach", "update_delta"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "CMIState",
    "InputError",
    "InputSpec",
    "LayerSpec",
    "RankConfig",
    "Ranking",
    "ResizedCrop",
    "Search",
    "SearchConfig",
    "TrainConfig",
    "calibrate",
    "data",
    "dequantize",
    "distill",
    "export_onnx",
    "fold_batchnorm",
    "functional",
    "fuse",
    "load",
    "losses",
    "models",
    "nn",
    "param_groups",
    "quantize",
    "rank",
    "register_strategy",
    "save",
    "search",
    "strategies",
    "summary",
    "teach",
    "update_delta",
    "use_backend",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for at its first use (PEP 562)."""
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
