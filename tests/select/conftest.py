"""A small tree of images and a teacher of it, as for sweeps."""

from ..sweep.conftest import teacher, tree

__all__ = ["teacher", "tree"]
