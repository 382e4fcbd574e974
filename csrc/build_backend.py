"""setuptools' build backend, which also asks for torch where there is none to build against.

Without it, pip would install torch beside a package that was built before, without its libraries.
"""

import os

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403
from toolchain import Impossible, compiler, torch_to_build_with

TORCH = "torch>=2.11"


def torch_to_fetch():
    """Return what the build needs besides pyproject.toml's list: a GB or two, so only if used."""
    if os.environ.get("DAQAKD_BUILD") == "none":
        return []
    try:
        compiler()
    except Impossible:
        return []
    try:
        torch_to_build_with()
    except Impossible:
        return [TORCH]
    return []


def get_requires_for_build_wheel(config_settings=None):
    """Return what pip installs beside the build of a wheel."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *torch_to_fetch()]


def get_requires_for_build_editable(config_settings=None):
    """Return what pip installs beside the build of an editable wheel."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *torch_to_fetch()]
