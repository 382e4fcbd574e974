"""Run a module: ``DAQAKD_BACKEND=emulated python -m tests.emulator MODULE ...``."""

import os
import runpy
import sys

forced = os.environ.pop("DAQAKD_BACKEND", None)  # a name the package learns by add()

from daqakd.backends import use_backend  # noqa: E402

from .backend import add  # noqa: E402

if len(sys.argv) < 2:
    sys.exit("usage: python -m tests.emulator MODULE [ARGUMENTS]")
add()
del sys.argv[0]
with use_backend(forced):
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
