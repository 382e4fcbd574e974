"""Look into the kernels that are slowest against their floor: ``python -m benchmarks.gpu_ncu``.

Of the rows that a run has left, Nsight Compute (ncu) profiles the five lowest fractions of the byte
floor, one for each op and backend, at sizes beyond the caches: bytes moved, throughput, occupancy.
"""

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from daqakd._files import write_json
from daqakd.bench.registry import find
from daqakd.bench.run import DTYPES

from .gpu_report import rows_of

COUNT = 5
SMALLEST = 2**24  # elements
MARK = "spin_kernel"  # of torch.cuda._sleep, which stands between two rows
METRICS = {  # name in ncu: name of the column, and its unit
    "gpu__time_duration.sum": ("us", 1e-3),
    "dram__bytes_read.sum": ("MB read", 1e-6),
    "dram__bytes_write.sum": ("MB written", 1e-6),
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": ("memory %", 1.0),
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": ("arithmetic %", 1.0),
    "sm__warps_active.avg.pct_of_peak_sustained_active": ("occupancy %", 1.0),
    "launch__registers_per_thread": ("registers", 1.0),
}
NCU = ["ncu", "--clock-control", "none", "--profile-from-start", "off", "--csv", "--page", "raw"]
NCU += ["--print-kernel-base", "function", "--print-units", "base", "--metrics", ",".join(METRICS)]


def slowest(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return our rows that are farthest from their floor, one for each op and backend."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    ours = [
        row
        for row in rows
        if row.get("device_of_floor")
        and row["provider"] in ("native", "triton")
        and row["elements"] >= SMALLEST
    ]
    for row in sorted(ours, key=lambda row: float(row["device_of_floor"])):
        found.setdefault((row["op"], row["provider"]), row)
    return list(found.values())[:COUNT]


def parsed(said: str, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row per kernel from ncu's output, in which a mark begins each row of ``rows``."""
    lines = list(csv.DictReader(line for line in said.splitlines() if line.startswith('"')))
    place, found = -1, []
    for line in lines[1:]:  # the first has the units
        if MARK in line["Kernel Name"]:
            place += 1
            continue
        row = rows[place]
        start = {key: row[key] for key in ("op", "elements", "dtype", "form", "provider")}
        start |= {"of floor": row["device_of_floor"], "kernel": line["Kernel Name"]}
        found.append(start | {
            column: float(line[name].replace(",", "")) * unit
            for name, (column, unit) in METRICS.items()
            if line.get(name)
        })  # fmt: skip
    return found


def profile(rows: Sequence[dict[str, Any]]) -> None:
    """Run each row once under ncu, a mark before it."""
    for row in rows:
        case = find(row["op"]).case(row["elements"], DTYPES[row["dtype"]], row["form"], "cuda")
        run, inputs = case.bind(find(row["op"]).providers("cuda")[row["provider"]]), case.make()
        run(*inputs)
        torch.cuda.synchronize()
        torch.cuda.profiler.start()
        torch.cuda._sleep(1)
        run(*inputs)
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()


def main() -> int:
    """Choose the rows, profile them in a process under ncu, and leave a table in ``ncu.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True, help="folder with the stages' rows")
    parser.add_argument("--out", type=Path, default=Path("runs/ncu"))
    parser.add_argument("--profile", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.profile:
        profile(options.profile)
        return 0
    rows = slowest([row for folder in sorted(options.rows.iterdir()) for row in rows_of(folder)])
    if not rows:
        print("no row of ours has a floor and a device time")
        return 0
    command = [sys.executable, "-m", "benchmarks.gpu_ncu", "--rows", str(options.rows)]
    done = subprocess.run(
        [*NCU, *command, "--profile", json.dumps(rows)], capture_output=True, text=True, check=False
    )
    print(done.stderr, done.stdout)
    found = parsed(done.stdout, rows)
    write_json(options.out / "ncu.json", {"rows": found})
    print(f"{len(found)} kernels of {len(rows)} rows")
    return int(done.returncode or not found)


if __name__ == "__main__":
    sys.exit(main())
