"""Compile what ours is compared with, so that the timed stages find it in torch's cache.

``python -m benchmarks.gpu_warm lsq pact --sizes 65536 --dtypes float32 --images 512``: a process
for each benchmark, dtype and compiled provider, a few at a time.
"""

import argparse
import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from daqakd.bench.registry import find
from daqakd.bench.run import cases

from .gpu_stages import SIZES_OF

AT_A_TIME = 8


def compile_one(op: str, name: str, options: argparse.Namespace) -> None:
    """Call a provider once on each of its cases."""
    for case, providers in cases(
        [op], SIZES_OF.get(op, options.sizes), options.dtypes, options.device, options.images
    ):
        try:
            case.bind(providers[name])(*case.make())
        except Exception as error:  # the timed stage says the same in its row
            print(f"{op} {case.form} {name}: {type(error).__name__}", flush=True)


def start(op: str, name: str, dtype: str, options: argparse.Namespace) -> int:
    """Compile one provider of one dtype in a process of its own; return the exit code."""
    command = [sys.executable, "-m", "benchmarks.gpu_warm", op, "--provider", name]
    command += ["--device", options.device, "--images", str(options.images), "--dtypes", dtype]
    command += ["--sizes", *map(str, options.sizes)]
    return subprocess.run(command, check=False).returncode


def main() -> int:
    """Start a process for each, or be one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ops", nargs="+")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", type=int, nargs="+", required=True)
    parser.add_argument("--dtypes", nargs="+", required=True)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--provider", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.provider:
        compile_one(options.ops[0], options.provider, options)
        return 0
    tasks = [
        (op, name, dtype, options)
        for op, dtype in itertools.product(options.ops, options.dtypes)
        for name in find(op).providers(options.device)
        if name.endswith("compile")
    ]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        codes = list(pool.map(lambda task: start(*task), tasks))
    print(f"compiled {codes.count(0)} of {len(codes)}")
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
