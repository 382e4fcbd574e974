"""What augmentation adds to a training step: ``python -m benchmarks.bench_share``.

An epoch of a strategy's batches, as the trainer gets them, and as many steps of a W2A2 ResNet-20
with its teacher on a batch that is there already, in interleaved rounds. The exit code says whether
every strategy stays below the limit.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

import daqakd
from daqakd import models
from daqakd._files import write_json
from daqakd.augment import PAPER, InputSpec, Stream, get_strategy
from daqakd.bench.augment import smooth_noise
from daqakd.bench.roofline import timer
from daqakd.data.named import NAMED_STATISTICS
from daqakd.functional import kd_loss
from daqakd.train.environment import environment

LIMIT = 0.05  # of a step, on a GPU
CLASSES, SIDE = 10, 32


def streams(num_images: int, device: str) -> dict[str, Stream]:
    """Return the paper's strategies over images that are resident on the device."""
    pixels, labels = smooth_noise(num_images, SIDE).to(device), torch.arange(num_images) % CLASSES
    inputs = InputSpec(*NAMED_STATISTICS["cifar10"])
    return {
        name: Stream(pixels, labels, get_strategy(name), inputs=inputs, seed=0, device=device)
        for name in PAPER
    }


def training_step(batch: int, device: str) -> Callable[[], None]:
    """Return a step as the trainer takes it: teacher, student, loss, gradients, Adam."""
    order = torch.channels_last if device == "cuda" else torch.contiguous_format
    x = torch.randn(batch, 3, SIDE, SIDE, device=device).contiguous(memory_format=order)
    labels = torch.arange(batch, device=device) % CLASSES
    teacher = models.build("resnet20", CLASSES).to(device).to(memory_format=order).eval()
    student = daqakd.quantize(teacher, weight_bits=2, act_bits=2)
    daqakd.calibrate(student, x).train()
    optimizer = torch.optim.Adam(daqakd.param_groups(student, 1e-3, 1e-4), lr=1e-3)

    def step() -> None:
        with torch.no_grad():
            wanted = teacher(x)
        loss = kd_loss(student(x), wanted, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def whole_epoch(stream: Stream, batch: int) -> None:
    """Make the batches of an epoch and drop them."""
    for _ in stream.epoch(0, batch):
        pass


def measure(steps: int, batch: int, rounds: int, device: str) -> dict[str, float]:
    """Return the seconds of a step, and of a batch of each strategy: medians."""
    step = training_step(batch, device)
    runs: dict[str, Callable[[], object]] = {"step": lambda: [step() for _ in range(steps)]}
    for name, stream in streams(steps * batch, device).items():
        runs[name] = partial(whole_epoch, stream, batch)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            begin = timer()
            run()
            if number:  # the first one warms up
                times[name].append((timer() - begin) / steps)
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> int:
    """Print a table, leave it in ``share.json``, and return 1 when the limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=100, help="in a round")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    options = parser.parse_args()
    found = measure(options.steps, options.batch, options.turns, options.device)
    step, rows = found.pop("step"), []
    for name, seconds in found.items():
        rows.append({"strategy": name, "seconds": seconds, "step_seconds": step})
        rows[-1] |= {"share": seconds / step, "images_per_second": options.batch / seconds}
        print(json.dumps(rows[-1]))
    write_json(options.out / "share.json", {**environment(), "batch": options.batch, "rows": rows})
    worst = max(found.values()) / step
    print(f"augmentation takes at most {worst:.1%} of a step (aim on a GPU: {LIMIT:.0%})")
    return int(options.device == "cuda" and worst >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
