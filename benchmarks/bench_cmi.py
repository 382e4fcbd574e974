"""What ranking adds to a teacher's forward pass: ``python -m benchmarks.bench_cmi``.

Every backend's sums are checked against the reference before they are timed, in interleaved
rounds. The exit code says whether the statistics stay below their limit.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from daqakd import CMIState, models
from daqakd._cmi import from_limbs
from daqakd.backends import can_run
from daqakd.bench.device_time import device_time
from daqakd.bench.roofline import timer
from daqakd.functional import cmi_update
from daqakd.functional.cmi import new_state
from daqakd.ranking.confidence import FOLDS
from daqakd.ranking.job import BATCH, STD_GROUP
from daqakd.train.environment import environment

LIMITS = {"cpu": 0.03, "cuda": 0.01}  # of the teacher's forward pass
CLASSES = (10, 100, 200)
Run = Callable[[], object]


def teacher_of(classes: int, device: str) -> tuple[torch.nn.Module, Tensor]:
    """Return ResNet-20 and a batch at CIFAR size, both as the ranker has them."""
    network = models.build("resnet20", classes).eval().to(device)
    network = network.to(memory_format=torch.channels_last)
    images = torch.randn(BATCH, 3, 32, 32, device=device)
    return network, images.contiguous(memory_format=torch.channels_last)


def predictions(classes: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits of a confident teacher, labels and folds."""
    labels = torch.arange(BATCH, device=device) % classes
    logits = torch.randn(BATCH, classes, device=device)
    logits += 8.0 * torch.nn.functional.one_hot(labels, classes)
    return logits, labels, torch.arange(BATCH, device=device) % FOLDS


def all_statistics(classes: int, device: str, mixed: bool) -> Run:
    """Return everything the ranker does with the logits of a batch."""
    logits, labels, folds = predictions(classes, device)
    state = CMIState(classes, folds=FOLDS, device=device)
    means = torch.zeros(2, classes, dtype=torch.float64, device=device)
    weight = torch.rand(BATCH, device=device)
    targets = (labels, labels.flip(0), weight) if mixed else labels

    def run() -> None:
        state.update(logits, targets, folds)
        state.soft.clear()
        group = torch.arange(BATCH, device=device) // STD_GROUP
        means.index_add_(0, group, logits.double().softmax(1))

    return run


def plain_sums(logits: Tensor, labels: Tensor, folds: Tensor, sums: Tensor) -> None:
    """Add up in float64 as ATen ops do it; wrong for confident teachers, and for comparison."""
    p = logits.double().softmax(1)
    entropy = -torch.special.xlogy(p, p).sum(1, keepdim=True)
    sums.view(-1, sums.shape[-1]).index_add_(
        0, folds * logits.shape[1] + labels, torch.cat([p, entropy], 1)
    )


def updates(classes: int, device: str) -> dict[str, Run]:
    """Return the update by every backend that can run, its sums checked, and by plain ATen."""
    logits, labels, folds = predictions(classes, device)
    sums = torch.zeros(FOLDS, classes, classes + 1, dtype=torch.float64, device=device)
    found: dict[str, Run] = {"eager": lambda: plain_sums(logits, labels, folds, sums)}
    wanted = new_state(classes, FOLDS, device)
    cmi_update(wanted, logits, labels, group=folds, backend="reference")
    for backend in ("reference", "triton", "native"):
        if can_run("cmi", backend, device, logits.dtype) is not None:
            continue
        state = new_state(classes, FOLDS, device)
        cmi_update(state, logits, labels, group=folds, backend=backend)
        torch.testing.assert_close(from_limbs(state), from_limbs(wanted), rtol=1e-12, atol=1e-12)
        found[backend] = partial(cmi_update, state, logits, labels, group=folds, backend=backend)
    return found


def medians(runs: dict[str, Run], rounds: int) -> dict[str, float]:
    """Return seconds per call; a round is as many calls as take 10 ms."""
    calls: dict[str, int] = {}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for name, run in runs.items():
        run()
        begin = timer()
        run()
        calls[name] = max(1, int(0.01 / max(timer() - begin, 1e-6)))
    for _ in range(rounds):
        for name, run in runs.items():
            begin = timer()
            for _ in range(calls[name]):
                run()
            times[name].append((timer() - begin) / calls[name])
    return {name: statistics.median(seconds) for name, seconds in times.items()}


@torch.no_grad()
def measure(
    classes: int, device: str, rounds: int
) -> tuple[dict[str, float], dict[str, dict[str, Any]]]:
    """Return seconds per batch of the teacher, of all statistics and of the update alone.

    On a GPU also the columns of its own time.
    """
    network, images = teacher_of(classes, device)
    runs: dict[str, Run] = {"teacher": lambda: network(images)}
    runs["statistics"] = all_statistics(classes, device, mixed=False)
    runs["statistics, cutmix"] = all_statistics(classes, device, mixed=True)
    runs |= {f"update, {name}": run for name, run in updates(classes, device).items()}
    found = medians(runs, rounds)
    alone = {name: device_time([run]) for name, run in runs.items()} if device == "cuda" else {}
    return found, {name: time.record(None) for name, time in alone.items()}


def main() -> int:
    """Print a table, leave it in ``cmi.json``, and return 1 when the limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--classes", type=int, nargs="+", default=CLASSES)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    options = parser.parse_args()
    rows, worst = [], 0.0
    print("| classes | what | us per batch of 500 | of the teacher's pass |\n|---|---|---|---|")
    for classes in options.classes:
        found, alone = measure(classes, options.device, options.turns)
        worst = max(worst, *(found[n] / found["teacher"] for n in found if n[:4] == "stat"))
        for name, seconds in found.items():
            ratio = seconds / found["teacher"]
            row = {"classes": classes, "what": name, "seconds": seconds, "share": ratio}
            rows.append(row | alone.get(name, {}))
            print(f"| {classes} | {name} | {1e6 * seconds:.1f} | {ratio:.3%} |", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    record = {**environment(), "device": options.device, "turns": options.turns, "rows": rows}
    (options.out / "cmi.json").write_text(json.dumps(record, indent=1) + "\n")
    limit = LIMITS[options.device]
    print(
        f"the statistics take at most {worst:.2%} of the teacher's forward pass (limit {limit:.0%})"
    )
    return int(worst >= limit)


if __name__ == "__main__":
    sys.exit(main())
