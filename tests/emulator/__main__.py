"""Run a module: ``DAQAKD_BACKEND=emulated python -m tests.emulator MODULE ...``."""

import runpy
import sys

from . import backend  # noqa: F401  adds the backend

if len(sys.argv) < 2:
    sys.exit("usage: python -m tests.emulator MODULE [ARGUMENTS]")
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
