"""Losses of feature distillation against eager transcriptions of their definitions.

``python -m benchmarks.bench_losses [--rounds N] [--only NAME ...] [--out FILE.md]``: forward and
backward of a batch, milliseconds, medians of rounds in which all contestants take turns.
``--memory``: the peak of NST and SP beside their naive forms, each in a process of its own.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import daqakd
from daqakd.augment import Batch
from daqakd.functional import kd_loss
from daqakd.losses import LOSSES, Setup

BATCH, CLASSES, IMAGES = 64, 100, 50_000
MAPS = [(128, 16), (256, 8), (512, 4), (512, 4)]  # of VGG-13 on 32 x 32 pixels, without the first
SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    **dict.fromkeys(("at", "nst", "vid"), tuple((c, s, s) for c, s in MAPS)),
    **dict.fromkeys(("sp", "ft", "squat"), ((512, 4, 4),)),
    **dict.fromkeys(("cc", "crd", "pkt", "rkd"), ((512,),)),
    **dict.fromkeys(("dist", "dkd"), ((CLASSES,),)),
    "fitnet": ((256, 8, 8),),
}
Maps = list[Tensor]
Measured = tuple[str, float, float, float, float]
ORDERS = [*permutations(range(3))]
EPS = 1e-7  # where transcriptions guard a quotient or a logarithm


class Quantizing(nn.Sequential):
    """A student and a teacher whose only convolution takes SQuaT's map."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Conv2d(512, 8, 3)), nn.Flatten(), nn.Linear(32, CLASSES))


def at(s: Maps, t: Maps, _: Any, __: Batch) -> Any:
    def attention(f: Tensor) -> Tensor:
        return F.normalize(f.pow(2).mean(1).flatten(1))

    return sum((attention(a) - attention(b)).pow(2).mean() for a, b in zip(s, t, strict=True))


def nst(s: Maps, t: Maps, _: Any, __: Batch) -> Any:
    def kernel(u: Tensor, v: Tensor) -> Tensor:
        return (u[:, None] * v[:, :, None]).sum(-1).pow(2).mean((1, 2))

    total: Any = 0
    for a, b in zip(s, t, strict=True):
        u, v = F.normalize(a.flatten(2), dim=2), F.normalize(b.flatten(2), dim=2)
        total = total + (kernel(v, v) + kernel(u, u) - 2 * kernel(u, v)).mean()
    return total


def sp(s: Maps, t: Maps, _: Any, __: Batch) -> Any:
    def gram(f: Tensor) -> Tensor:
        rows = f.flatten(1)
        return F.normalize(rows @ rows.T)

    return sum((gram(b) - gram(a)).pow(2).sum() / len(a) ** 2 for a, b in zip(s, t, strict=True))


def rkd(s: Maps, t: Maps, _: Any, __: Batch) -> Any:
    def distances(e: Tensor) -> Tensor:
        square = e.pow(2).sum(1)
        found = (square[:, None] + square[None] - 2 * e @ e.T).clamp(min=EPS).sqrt()
        found = found * (1 - torch.eye(len(e)))
        return found / found[found > 0].mean()

    def angles(e: Tensor) -> Tensor:
        towards = F.normalize(e[None] - e[:, None], dim=2)
        return torch.bmm(towards, towards.transpose(1, 2)).flatten()

    total: Any = 0
    for a, b in zip(s, t, strict=True):
        with torch.no_grad():
            wanted = distances(b), angles(b)
        total = total + 25 * F.smooth_l1_loss(distances(a), wanted[0])
        total = total + 50 * F.smooth_l1_loss(angles(a), wanted[1])
    return total


def fitnet(s: Maps, t: Maps, loss: Any, _: Batch) -> Any:
    return sum(F.mse_loss(r(a), b) for r, a, b in zip(loss.regressors, s, t, strict=True))


def cc(s: Maps, t: Maps, loss: Any, _: Batch) -> Any:
    d = (loss.student_embeddings[0](s[0]) - loss.teacher_embeddings[0](t[0])).abs()
    return (d[:-1] * d[1:]).sum(1).mean()


def vid(s: Maps, t: Maps, loss: Any, _: Batch) -> Any:
    total: Any = 0
    for mean, theta, a, b in zip(loss.means, loss.thetas, s, t, strict=True):
        variance = torch.log(1 + torch.exp(theta)) + 1e-5
        total = total + 0.5 * ((mean(a) - b) ** 2 / variance + torch.log(variance)).mean()
    return total


def pkt(s: Maps, t: Maps, _: Any, __: Batch) -> Any:
    def neighbours(e: Tensor) -> Tensor:
        rows = e / (e.pow(2).sum(1, keepdim=True).sqrt() + EPS)
        similarity = (rows @ rows.T + 1) / 2
        return similarity / similarity.sum(1, keepdim=True)

    p, q = neighbours(s[0]), neighbours(t[0])
    return (q * torch.log((q + EPS) / (p + EPS))).mean()


def ft(s: Maps, t: Maps, loss: Any, _: Batch) -> Any:
    def factor(f: Tensor) -> Tensor:
        return F.normalize(f.pow(2).mean(1).flatten(1))

    with torch.no_grad():
        wanted = loss.encoders[0](t[0])
    return (factor(loss.translators[0](s[0])) - factor(wanted)).abs().mean()


def dkd(s: Maps, t: Maps, _: Any, batch: Batch, heat: float = 4.0) -> Any:
    own = F.one_hot(batch.labels, CLASSES).bool()
    p, q = F.softmax(s[0] / heat, 1), F.softmax(t[0] / heat, 1)

    def pair(x: Tensor) -> Tensor:
        return torch.stack([(x * own).sum(1), (x * ~own).sum(1)], 1)

    target = F.kl_div(torch.log(pair(p)), pair(q), reduction="batchmean")
    rest = F.kl_div(
        F.log_softmax(s[0] / heat - 1000.0 * own, 1),
        F.softmax(t[0] / heat - 1000.0 * own, 1),
        reduction="batchmean",
    )
    return heat**2 * (target + 8 * rest)


def dist(s: Maps, t: Maps, _: Any, __: Batch) -> Any:
    def apart(x: Tensor, y: Tensor) -> Tensor:
        x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
        return 1 - F.cosine_similarity(x, y, 1, EPS).mean()

    p, q = s[0].softmax(1), t[0].softmax(1)
    return apart(p, q) + apart(p.T, q.T)


def squat(s: Maps, t: Maps, loss: Any, _: Batch) -> Any:
    with torch.no_grad():
        wanted = loss.quantizers[0].forward(t[0])  # a call would find it in a cache
    return F.mse_loss(s[0], wanted)


def crd(s: Maps, t: Maps, loss: Any, batch: Batch) -> Any:
    """As the public code has it, but for its draws, which take longer: rows are gathered."""
    banks, size, noise = (
        (loss.teacher_bank, loss.student_bank),
        len(loss.student_bank),
        loss.negatives,
    )
    own = loss.rows[batch.index]
    rows = torch.cat([own[:, None], torch.randint(size, (len(own), loss.negatives))], 1)
    total: Any = 0
    found = []
    sides = zip(loss.embeddings, (s[0], t[0]), banks, strict=True)
    for side, (embedding, x, bank) in enumerate(sides):
        v = F.normalize(embedding(x))
        z = torch.exp(loss.log_odds[side]) * size / noise
        weight = bank.index_select(0, rows.flatten()).view(*rows.shape, -1)
        p = torch.exp(torch.bmm(weight, v[:, :, None])[..., 0] / loss.temperature) / z
        total = total - torch.log(p[:, 0] / (p[:, 0] + noise / size + EPS)).sum()
        others = (noise / size) / (p[:, 1:] + noise / size + EPS)
        total = total - torch.log(others).sum()
        found.append(v.detach())
    with torch.no_grad():
        for bank, v in zip((loss.student_bank, loss.teacher_bank), found, strict=True):
            bank.index_copy_(0, own, F.normalize(0.5 * bank[own] + 0.5 * v))
    return total / len(own)


@dataclass
class Contest:
    """A loss, made for these maps, beside its transcription."""

    name: str
    loss: Any
    maps: list[Tensor]
    teacher: list[Tensor]
    batch: Batch

    def run(self, call: Callable[..., Tensor]) -> float:
        """Return the seconds of a forward and a backward pass."""
        leaves = [m.detach().requires_grad_() for m in self.maps]
        begin = time.perf_counter()
        call(leaves).backward()
        return time.perf_counter() - begin

    def own(self, leaves: list[Tensor]) -> Tensor:
        """Compute the package's loss."""
        return self.loss(leaves, self.teacher, self.batch)

    def transcribed(self, leaves: list[Tensor]) -> Tensor:
        """Compute the transcription's, with the same parameters."""
        return globals()[self.name](leaves, self.teacher, self.loss, self.batch)


def contest(name: str) -> Contest:
    """Return a loss with maps of its kind."""
    torch.manual_seed(0)
    shapes = [(BATCH, *shape) for shape in SHAPES[name]]
    maps, teacher = ([torch.randn(shape).relu() for shape in shapes] for _ in range(2))
    if name in ("dist", "dkd"):
        maps, teacher = ([3 * torch.randn(shape) for shape in shapes] for _ in range(2))
    labels = torch.arange(IMAGES) % CLASSES
    index = torch.randperm(IMAGES)[:BATCH]
    batch = Batch(torch.zeros(BATCH, 3, 1, 1), labels[index], index)
    models = _models() if name == "squat" else (nn.Identity(), nn.Identity())
    loss = LOSSES[name](taps=["0"]) if name == "squat" else LOSSES[name]()
    loss.prepare(Setup(*models, maps, teacher, batch, labels, torch.arange(IMAGES), CLASSES, 0))
    return Contest(name, loss.train(), maps, teacher, batch)


def _models() -> tuple[nn.Module, nn.Module]:
    teacher = Quantizing()
    student = daqakd.quantize(teacher, weight_bits=2, act_bits=2, first_last="same")
    daqakd.calibrate(student, [torch.randn(BATCH, 512, 4, 4).relu()])
    return student, teacher


def kd(batch: Batch) -> Callable[[list[Tensor]], Tensor]:
    """Return plain KD, for logits."""
    teacher = 3 * torch.randn(BATCH, CLASSES)
    return lambda leaves: kd_loss(leaves[0], teacher, batch.labels)


def check(one: Contest) -> float:
    """Return by how much the two differ, relative to the loss; CRD draws other negatives."""
    found, other = one.own(one.maps), one.transcribed(one.maps)
    return abs(found.item() - other.item()) / max(abs(other.item()), 1e-12)


def measure(names: list[str], rounds: int) -> list[Measured]:
    """Return name, difference, and milliseconds of KD, ours and the transcription."""
    rows: list[Measured] = []
    for name in names:
        one = contest(name)
        logits = Contest("kd", one.loss, [3 * torch.randn(BATCH, CLASSES)], [], one.batch)
        plain = kd(one.batch)
        apart = check(one)
        calls = [(logits, plain), (one, one.own), (one, one.transcribed)]
        times: list[list[float]] = [[], [], []]
        for number in range(rounds + 1):
            for place in ORDERS[number % len(ORDERS)]:  # who comes second finds maps in the cache
                which, call = calls[place]
                times[place].append(which.run(call))
        plain_ms, ours, other = (1000 * statistics.median(found[1:]) for found in times)
        rows.append((name, apart, plain_ms, ours, other))
        print(_row(rows[-1]), flush=True)
    return rows


def _row(row: Measured) -> str:
    name, apart, plain, ours, other = row
    return f"| {name} | {plain:.2f} | {ours:.2f} | {other:.2f} | {other / ours:.2f} | {apart:.1e} |"


HEADER = "| loss | KD, ms | ours, ms | transcription, ms | transcription / ours | difference |\n"
HEADER += "|---|---|---|---|---|---|"

NAIVE: dict[str, Any] = {
    "nst": nst,
    "sp": lambda s, t, *_: sum(
        (
            F.normalize((b.flatten(1)[:, None] * b.flatten(1)[None]).sum(2))
            - F.normalize((a.flatten(1)[:, None] * a.flatten(1)[None]).sum(2))
        )
        .pow(2)
        .mean()
        for a, b in zip(s, t, strict=True)
    ),
}


def peak(name: str, naive: bool) -> float:
    """Return the MiB that a pass adds to this process's peak, at 128 maps of 64 x 32 x 32."""
    maps = [torch.randn(128, 64, 32, 32).requires_grad_()]
    teacher = [torch.randn(128, 64, 32, 32)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loss: Any = LOSSES[name]()
    value = NAIVE[name](maps, teacher, None, None) if naive else loss(maps, teacher, None)
    value.backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def memory() -> list[str]:
    """Return the lines of the table of peaks."""
    lines = ["| loss | ours, MiB | naive, MiB |", "|---|---|---|"]
    for name in NAIVE:
        found = []
        for naive in ("0", "1"):
            command = [sys.executable, "-m", "benchmarks.bench_losses", "--peak", name, naive]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(float(done.stdout.split()[-1]))
        lines.append(f"| {name} | {found[0]:.0f} | {found[1]:.0f} |")
    return lines


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="+", choices=[*LOSSES], default=[*LOSSES])
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.peak:
        print(peak(options.peak[0], options.peak[1] == "1"))
        return
    if options.memory:
        lines = memory()
        print("\n".join(lines))
    else:
        print(HEADER)
        lines = [HEADER, *map(_row, measure(options.only, options.rounds))]
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
