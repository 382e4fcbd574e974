"""The training loop: teacher or student, resumable at any step, deterministic in the seed."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import _console, _ranks
from .._errors import InputError
from .._files import write_text
from ..augment import Batch, InputSpec, Stream
from ..augment.draws import philox
from .checkpoint import load_checkpoint, read_progress, save_checkpoint
from .config import TrainConfig
from .graph import Gradients, can_record
from .identity import check_identity
from .metrics import to_csv
from .optimizers import Optimizers
from .part import Part
from .prefetch import can_prefetch, prefetched
from .schedule import factors

NOISE = 3  # slot of the per-step seed that dropout draws from
COLUMNS = ("loss", "ce", "kl", "accuracy")

LossFunction = Callable[[Batch], tuple[Tensor, Tensor, Tensor, Tensor]]  # loss, CE, KL, logits


class Interrupt:
    """Turns SIGTERM into a flag that the loop looks at between steps."""

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Catch SIGTERM within the block, in the main thread."""
        try:
            before = signal.signal(signal.SIGTERM, self._request)
        except ValueError:  # not the main thread
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _request(self, *_: Any) -> None:
        self.requested = True


@dataclass
class Loop:
    """One training run.

    ``losses`` computes loss, CE, KL and logits of a batch; ``validate`` returns the held-out
    accuracy, or None; ``files`` names the checkpoint and the metrics file, or is None; ``identity``
    is what the checkpoint belongs to; ``parts`` see every step, in their order; ``own_gradients``
    surrounds passes whose gradients are not yet a batch's.
    """

    model: nn.Module
    optimizer: Optimizers
    stream: Stream
    losses: LossFunction
    validate: Callable[[], float | None]
    config: TrainConfig
    files: tuple[Path, Path] | None = None
    title: str = "train"
    watch: Callable[..., Any] = _console.quiet
    identity: dict[str, Any] = field(default_factory=dict)
    parts: Sequence[Part] = ()
    own_gradients: Callable[[], AbstractContextManager[None]] = nullcontext

    def __post_init__(self) -> None:
        self.device = next(self.model.parameters()).device
        self.steps = self.stream.steps(self.config.batch_size)
        self.factors = factors(self.config, self.steps).tolist()
        self.totals = torch.zeros(len(COLUMNS) + 1, dtype=torch.float64, device=self.device)
        images = self.stream.inputs.describe()
        self.progress: dict[str, Any] = {"epoch": 0, "step": 0, "history": [], "images": images}
        self.progress |= self.identity
        self.saved_at = time.monotonic()
        self.interrupt = Interrupt()
        recorded = can_record(self.config, self.device)
        parameters = self.optimizer.parameters
        self.gradients = Gradients(self._add_gradients, parameters, recorded, self._say)

    def _say(self, text: str) -> None:
        if self.watch is not _console.quiet:
            _console.say(f"{self.title}: {text}")

    def run(self) -> list[dict[str, Any]]:
        """Train to the end, from the checkpoint if there is one; return the history."""
        if self.files is not None and self.files[0].exists():
            self._check_run(self.files[0])
            totals, progress = load_checkpoint(
                self.files[0], self.model, self.optimizer, self.parts, self.device
            )
            self.totals = _ranks.unstacked(totals, self.totals.dim())
            self.progress |= progress
        self._check_ranks()
        with torch.random.fork_rng(), self.interrupt.catching():
            while self.progress["epoch"] < self.config.epochs:
                self._epoch()
        return list(self.progress["history"])

    def _check_run(self, path: Path) -> None:
        """Raise InputError where a checkpoint belongs to other images, data or options."""
        told, here = read_progress(path), self.progress["images"]
        there = told.get("images", InputSpec().describe())
        if there != here:
            raise InputError(
                f"{path}: holds a {self.title}'s run on images from {there}, here they are from"
                f" {here}. Use another run directory, or the same pipeline to continue that run"
            )
        if self.identity:
            check_identity(path, self.title, told, self.identity)

    def _check_ranks(self) -> None:
        """Raise InputError where the ranks go on from different places."""
        if not _ranks.agree(self.progress["epoch"] * self.steps + self.progress["step"]):
            raise InputError(
                f"run_dir: the ranks see different checkpoints of the {self.title}'s run; use a"
                " directory that all machines share"
            )

    def _present(self) -> list[Part]:
        """Return the parts that take part in the epoch."""
        return [part for part in self.parts if part.first_epoch <= self.progress["epoch"]]

    def _epoch(self) -> None:
        epoch, start = self.progress["epoch"], self.progress["step"]
        self.model.train()
        for part in self._present():
            part.before_epoch(epoch)
        if any(part.rewrites for part in self._present()):
            self.gradients.forget()
        batches = self.stream.epoch(epoch, self.config.batch_size, start, _ranks.share)
        if self.config.prefetch == "auto" and can_prefetch(self.stream):
            batches = prefetched(batches, self.device)
        title = f"{self.title} epoch {epoch + 1}/{self.config.epochs}"
        for batch in self.watch(batches, title, self.steps, start):
            self._step(batch)
            due = time.monotonic() - self.saved_at > self.config.checkpoint_seconds
            stop, due = _ranks.any_of(self.interrupt.requested, due)
            if stop or due:
                self._save()
            if stop:
                raise SystemExit(143)
        self._finish_epoch()

    def _step(self, batch: Batch) -> None:
        epoch, step = self.progress["epoch"], self.progress["step"]
        done = epoch * self.steps + step
        self.optimizer.scale(self.factors[done])
        counter = torch.tensor(step + (_ranks.own() << 32))
        torch.manual_seed(int(philox(self.config.seed, epoch, counter, NOISE)[0]))
        parts = self._present()
        for part in parts:
            part.before_step(done)
        self._gradients(batch)
        for part in parts:
            part.after_gradients(done)
        if self.config.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.optimizer.parameters, self.config.clip_grad)
        for part in parts:
            part.after_backward(done)
        self.optimizer.step()
        for part in parts:
            part.after_step(done)
        self.progress["step"] += 1

    def _gradients(self, batch: Batch) -> None:
        """Compute the gradients of a batch, a part of it at a time."""
        self.gradients.zero()
        pieces = self.config.accumulate
        *others, last = batch.split(pieces) if pieces > 1 else [batch]
        for piece in others:
            with self.own_gradients():
                self.gradients.add(piece)
        self.gradients.add(last)

    def _add_gradients(self, piece: Batch) -> None:
        """Add the gradients of one of the equal parts of a batch, and count its losses."""
        pieces = self.config.accumulate
        loss, ce, kl, logits = self._losses(piece)
        if self.device.type == "cpu" and not loss.isfinite():  # a GPU is read at checkpoints
            raise InputError(self._blame(piece))
        (loss / pieces if pieces > 1 else loss).backward()
        self._count(loss, ce, kl, logits, piece.labels)

    def _count(self, loss: Tensor, ce: Tensor, kl: Tensor, logits: Tensor, labels: Tensor) -> None:
        right = (logits.detach().argmax(1) == labels).double().mean()
        parts = [loss.detach(), ce.detach(), kl.detach(), right, torch.ones_like(right)]
        self.totals += torch.stack([p.double() for p in parts])

    def _losses(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        try:
            return self.losses(batch)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise InputError(
                f"batch_size: {self.config.batch_size} is too few for a BatchNorm of this model,"
                " which needs two values per channel or more; raise --batch-size"
            ) from error

    def _finish_epoch(self) -> None:
        means = self._means()
        row = {"epoch": self.progress["epoch"] + 1, **dict(zip(COLUMNS, means, strict=True))}
        row["heldout_accuracy"] = accuracy = self.validate()
        last = row["epoch"] * self.steps - 1
        row["lr"] = self.optimizer.peaks[0] * self.factors[last]  # also where no step was left
        for part in self._present():
            row |= part.end_epoch(self.progress["epoch"], accuracy)
        self.totals.zero_()
        for part in self._present():
            part.after_epoch(row)
        self.progress["history"].append(row)
        self.progress["epoch"] += 1
        self.progress["step"] = 0
        self._save()
        if self.watch is not _console.quiet:
            held = row["heldout_accuracy"]
            shown = "" if held is None else f", held-out {held:.2%}"
            _console.say(
                f"{self.title} epoch {row['epoch']}/{self.config.epochs}: loss {row['loss']:.4f},"
                f" training {row['accuracy']:.2%}{shown}"
            )

    def _means(self) -> list[float]:
        """Read the epoch's means back, after making sure that they are numbers."""
        rows = _ranks.stacked(self.totals)
        sums: list[float] = (rows.sum(0) if rows.dim() > 1 else rows).tolist()
        if sums[0] != sums[0] or abs(sums[0]) == float("inf"):
            raise InputError(self._blame())
        return [s / sums[-1] for s in sums[:-1]]

    def _blame(self, batch: Batch | None = None) -> str:
        """Say which tensor went wrong first: a weight, or with the batch an activation."""
        named = [*self.model.named_parameters(), *self.model.named_buffers()]
        bad = [n for n, t in named if t.is_floating_point() and not t.isfinite().all()]
        if not bad and batch is not None:
            bad = _bad_outputs(self.model, batch.images)
        first = f"the first non-finite tensor is {bad[0]}" if bad else "all weights are finite"
        kept = "" if self.files is None else f" The last good checkpoint is {self.files[0]}."
        return (
            f"{self.title}: the loss is not a number at epoch {self.progress['epoch'] + 1}, step"
            f" {self.progress['step']}: {first}.{kept} Try a lower --lr or --quantizer-lr"
        )

    def _save(self) -> None:
        if self.progress["step"]:
            self._means()
        if self.files is not None:
            checkpoint, metrics = self.files
            state = self.model, self.optimizer, self.parts
            save_checkpoint(checkpoint, *state, _ranks.stacked(self.totals), self.progress)
            if self.progress["history"]:
                write_text(metrics, to_csv(self.progress["history"]))
        _ranks.wait()
        self.saved_at = time.monotonic()


@torch.no_grad()
def _bad_outputs(model: nn.Module, images: Tensor) -> list[str]:
    """Return the modules whose output is not finite, in the order of the forward pass."""
    bad: list[str] = []

    def look(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all():
                bad.append(f"the output of {name or 'the model'}")

        return hook

    handles = [m.register_forward_hook(look(n)) for n, m in model.named_modules()]
    model(images)
    for handle in handles:
        handle.remove()
    return bad
