"""Make sure that every kernel can run: ``python -m benchmarks.gpu_libraries cuda``.

A bundle's libraries are taken as they are where they load; they are built anew where they do not,
and in a checkout always. No package index is asked. The exit code says whether all is there.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

BUNDLE_FILE = Path("bundle.json")  # beside sources that came with their libraries


def missing(device: str) -> list[str]:
    """Return what cannot run on ``device`` and why; libraries are loaded once a process."""
    from daqakd._ops import INPUT_DTYPES, STEMS
    from daqakd.backends import can_run
    from daqakd.backends.native import DTYPES

    found: dict[str, None] = {}
    for backend in ("native", "triton") if device == "cuda" else ("native",):
        for stem in STEMS:
            for dtype in INPUT_DTYPES.get(stem, DTYPES["cuda"]):
                reason = can_run(stem, backend, device, dtype)
                found |= {f"{backend}: {reason}": None} if reason else {}
    return list(found)


def all_there(device: str) -> bool:
    """Say what is missing, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.gpu_libraries", device, "--look"]
    return subprocess.run(command, check=False).returncode == 0


def main() -> int:
    """Build what has to be built, and look again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("device", choices=["cpu", "cuda"])
    parser.add_argument("--look", action="store_true", help="build nothing")
    options = parser.parse_args()
    if options.look:
        reasons = missing(options.device)
        print("\n".join(reasons) or f"every kernel for {options.device} is there", flush=True)
        return int(bool(reasons))
    if BUNDLE_FILE.exists() and all_there(options.device):
        return 0
    build = [sys.executable, "setup.py", "build_ext", "--inplace"]
    environment = os.environ | {"DAQAKD_BUILD": options.device}
    code = subprocess.run(build, env=environment, check=False).returncode
    return code or int(not all_there(options.device))


if __name__ == "__main__":
    sys.exit(main())
