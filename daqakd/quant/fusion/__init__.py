"""``fuse``: batch norm, sum, activation and quantizer of a student become one op."""

from .fusing import fuse, fused, unfuse

__all__ = ["fuse", "fused", "unfuse"]
