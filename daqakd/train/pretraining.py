"""What some losses learn before a student trains: a run of its own, resumed like the student's."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import _console
from ..augment import Batch, Stream
from ..models import logits_of
from .config import TrainConfig
from .feature_losses import FeatureLosses, Term
from .job import Job
from .loop import Loop, LossFunction
from .objective import images_of
from .optimizers import Optimizers
from .replicas import MeanGradients


def pretrain(losses: FeatureLosses, teacher: nn.Module, stream: Stream, job: Job) -> None:
    """Train what losses ask for, by the teacher's maps alone: SGD at a constant rate."""
    for term in losses.terms:
        if not getattr(term.loss, "pretrain_epochs", 0):
            continue
        own = _config(term.loss, job.config)
        parameters = [*term.loss.pretrained_parameters()]
        groups = [{"params": parameters, "lr": own.lr, "weight_decay": 0.0, "name": "model"}]
        Loop(
            term.loss,
            Optimizers(groups, own),
            stream,
            _reconstruction(losses, term, teacher),
            lambda: None,
            own,
            None if job.folder is None else _files(job.folder, term.name),
            f"{job.role}'s {term.name}",
            _console.quiet if job.quiet else _console.track,
            job.belongs,
            [MeanGradients(parameters)],
        ).run()


def _files(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / "checkpoint" / f"{name}.safetensors", folder / f"{name}_metrics.csv"


def _config(loss: Any, config: TrainConfig) -> TrainConfig:
    """Return the options: the loss's own, and those of the run that leave numbers as they are."""
    names = ("batch_size", "seed", "prefetch", "workers", "checkpoint_seconds")
    return TrainConfig(
        epochs=loss.pretrain_epochs,
        lr=loss.pretrain_lr,
        optimizer="sgd",
        schedule="constant",
        **{name: getattr(config, name) for name in names},
    )


def _reconstruction(losses: FeatureLosses, term: Term, teacher: nn.Module) -> LossFunction:
    """Return the loss of a batch, as the loop takes it."""

    def of_batch(batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with torch.no_grad():
            logits = logits_of(teacher(images_of(batch)))
        loss = term.loss.pretrain_loss(losses.taps[1].read(term.teacher, logits))
        return loss, torch.zeros_like(loss), torch.zeros_like(loss), logits

    return of_batch
