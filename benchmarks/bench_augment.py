"""Augmentation against torchvision, image by image, on the same cores: images per second.

``python -m benchmarks.bench_augment --cores 2`` prints a table; ``--out FILE`` leaves it as JSON;
``--device cuda`` has ours on a GPU, torchvision on the cores.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torchvision import transforms

from daqakd.augment.plan import Planner, normalised_values
from daqakd.augment.policies import policy
from daqakd.backends import can_run
from daqakd.functional import augment
from daqakd.report.floor import synchronize
from daqakd.train.environment import environment

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
MODELS: dict[str, Callable[[], Any]] = {
    "nothing": lambda: transforms.Lambda(lambda image: image),
    "trivialaugment": transforms.TrivialAugmentWide,
    "randaugment": transforms.RandAugment,
    "autoaugment-cifar": lambda: transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10),
    "augmix": transforms.AugMix,
}
OURS = ("reference", "triton", "native")
HEADS = ("policy", "side", "torchvision", *OURS, "against torchvision")


def photographs(count: int, side: int) -> torch.Tensor:
    """Return smooth noise, whose histograms are like those of photographs: uint8."""
    coarse = torch.randn(count, 3, side // 4, side // 4)
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    return (smooth * 50 + 120).clamp(0, 255).to(torch.uint8)


class PerImage:
    """torchvision's pipeline, as training scripts write it; PIL images in, a batch out."""

    def __init__(self, name: str, pixels: torch.Tensor) -> None:
        self.images = [Image.fromarray(p.permute(1, 2, 0).numpy()) for p in pixels]
        side = pixels.shape[-1]
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(side, padding=side // 8),
                transforms.RandomHorizontalFlip(),
                MODELS[name](),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __call__(self, rows: range) -> int:
        """Augment some images; return how many."""
        return len(torch.stack([self.transform(self.images[i]) for i in rows]))


class Batched:
    """Ours: the plan drawn and followed."""

    def __init__(self, name: str, pixels: torch.Tensor, backend: str) -> None:
        side, device = pixels.shape[-1], pixels.device
        values, drawn = normalised_values(MEAN, STD).to(device), policy(name, side, side).to(device)
        self.planner = Planner(drawn, side, side, side // 8, True, False, None, "image", values, 0)
        self.pixels, self.backend, self.step = pixels, backend, 0

    def result(self, step: int) -> torch.Tensor:
        """Return the batch of a step."""
        index = torch.arange(len(self.pixels), device=self.pixels.device)
        return augment(self.pixels, self.planner.plan(step, index), backend=self.backend)

    def __call__(self) -> None:
        """Augment all images anew."""
        self.step += 1
        self.result(self.step)
        synchronize(self.pixels.device.type)


_work: PerImage | None = None


def _share(rows: range) -> int:
    torch.set_num_threads(1)
    assert _work is not None
    return _work(rows)


def seconds(run: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def rows(name: str, side: int, cores: int, batch: int, turns: int, device: str) -> dict[str, Any]:
    """Verify, then let the contestants take turns; return images per second, medians."""
    global _work
    pixels = photographs(batch, side)
    ours = {
        backend: Batched(name, pixels.to(device), backend)
        for backend in OURS
        if can_run("augment", backend, device, torch.uint8) is None
    }
    results = [batched.result(0) for batched in ours.values()]
    assert all(torch.equal(result, results[0]) for result in results), "the backends differ"
    _work = PerImage(name, pixels)
    shares = [range(core, batch, cores) for core in range(cores)]
    # forked workers have the images already, and keep their results: torchvision pays no transport
    with ProcessPoolExecutor(cores, multiprocessing.get_context("fork")) as pool:
        contestants: dict[str, Callable[[], object]] = {
            "torchvision": lambda: sum(pool.map(_share, shares)),
            **ours,
        }
        for run in contestants.values():
            run()
        times = [{k: seconds(run) for k, run in contestants.items()} for _ in range(turns)]
    speeds = {k: batch / statistics.median(turn[k] for turn in times) for k in contestants}
    return {"policy": name, "side": side, "batch": batch, "images_per_second": speeds}


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
    parser.add_argument("--policy", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.cores)
    print(f"images per second, {options.cores} cores, batches of {options.batch}\n")
    print(f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}")
    found = []
    for side in options.side:
        for name in options.policy:
            found.append(
                rows(name, side, options.cores, options.batch, options.turns, options.device)
            )
            print(f"| {' | '.join(cells(found[-1]))} |", flush=True)
    if options.out:
        options.out.write_text(json.dumps({**environment(), "rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
