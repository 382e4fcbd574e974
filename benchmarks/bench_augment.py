"""Augmentation against torchvision, image by image, on the same cores: images per second.

``python -m benchmarks.bench_augment --cores 2`` prints a row per policy and side, with a plan drawn
within the time; ``daqakd bench --op augment`` has more providers.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import torch

from daqakd._files import write_json
from daqakd.bench.augment import AugmentBenchmark
from daqakd.bench.measure import compare
from daqakd.train.environment import environment

OURS = ("reference", "triton", "native")
HEADS = ("policy", "side", "torchvision", *OURS, "against torchvision")


def measure(policy: str, side: int, batch: int, rounds: int, device: str) -> dict[str, Any]:
    """Verify, then time the providers in interleaved rounds; return median images per second."""
    benchmark = AugmentBenchmark(side)
    providers = {k: v for k, v in benchmark.providers(device).items() if k in HEADS}
    case = benchmark.case(batch, torch.float32, policy, device)
    measured = compare(case, providers, rounds)
    wrong = [f"{one.provider}: {one.note}" for one in measured if one.note]
    if wrong:
        raise SystemExit("; ".join(wrong))
    speeds = {one.provider: one.images_per_second for one in measured}
    return {"policy": policy, "side": side, "batch": batch, "images_per_second": speeds}


def cells(row: dict[str, Any]) -> list[str]:
    """Return a row's cells."""
    speeds = row["images_per_second"]
    shown = [f"{speeds[k]:,.0f}" if k in speeds else "-" for k in HEADS[2:-1]]
    best = speeds.get("native", speeds["reference"])
    return [row["policy"], str(row["side"]), *shown, f"{best / speeds['torchvision']:.0f} x"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--side", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--policy", nargs="+", default=list(AugmentBenchmark().forms))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.cores)
    print(f"images per second, {options.cores} cores, batches of {options.batch}\n")
    print(f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}")
    found = []
    for side in options.side:
        for policy in options.policy:
            found.append(measure(policy, side, options.batch, options.turns, options.device))
            print(f"| {' | '.join(cells(found[-1]))} |", flush=True)
    if options.out:
        write_json(options.out, {**environment(), "rows": found})


if __name__ == "__main__":
    main()
