"""Out of training: files of students that say all that is needed to use them."""

from .files import load, save

__all__ = ["load", "save"]
