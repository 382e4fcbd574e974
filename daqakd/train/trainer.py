"""``distill`` and ``teach``: a low-bit student from a teacher, and the teacher itself."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from .. import _console, _ranks
from .._arguments import device_of_model
from .._config import config_of
from .._errors import InputError
from .._lock import working_in
from ..augment import Stream, clean_inputs, get_strategy
from ..data import Dataset
from ..models import check_logits
from ..quant import calibrate, param_groups
from ..quant.base import ActivationQuantizer
from ..quant.fusion import fused
from ..ranking.arguments import check_run
from ..ranking.job import automatic_workers
from .compiled import compiled, told
from .config import TrainConfig
from .delta_updates import delta_updates
from .evaluate import accuracy
from .feature_losses import FeatureLosses, Weighted, describe, feature_losses, losses_of
from .identity import identity
from .job import Job
from .loop import Loop, LossFunction
from .objective import distillation, images_of, laid_out, said_of_precision, supervised
from .optimizers import Optimizers, check_quantizer_options
from .part import Part
from .parts import kept_states, logs, prefix, student_parts
from .pretraining import pretrain
from .replicas import MeanGradients, SharedStatistics, check_shares, own_gradients, replicated
from .stages import check_widths, first_batches, last_stage, own_widths_after
from .sync_bn import synchronised


@dataclass(frozen=True)
class Result:
    """A trained model, one dictionary per epoch, held-out accuracy at the end, seconds.

    ``kept`` holds other states of the model, by name: ``best`` of the epoch with the highest
    accuracy on held-out images, ``ema`` the moving average, where asked for.
    """

    model: nn.Module
    history: list[dict[str, Any]]
    heldout_accuracy: float | None
    seconds: float
    kept: dict[str, dict[str, Tensor]] = field(default_factory=dict)


def _checked(
    config: TrainConfig | None, dataset: Dataset, name: str, model: nn.Module
) -> TrainConfig:
    """Return the configuration, after making sure that there is something to train."""
    config = config_of(TrainConfig, config)
    config.check()
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(
            f"{name}: no parameter requires a gradient, so nothing would train; call"
            " requires_grad_(True) on it, or pass another"
        )
    if len(dataset.fit) == 0:
        raise InputError("dataset: no images to fit; lower holdout")
    check_shares(config, len(dataset.fit))
    return config


def _check_outputs(name: str, model: nn.Module, dataset: Dataset) -> None:
    """Require logits of the data set's classes from a model."""
    pixels, device = dataset.train.pixels[:2], device_of_model(name, model)
    images = clean_inputs(pixels, dataset.inputs, device)
    check_logits(model, images, dataset.num_classes, name)


def _stream(dataset: Dataset, strategy: str, config: TrainConfig, device: torch.device) -> Stream:
    return Stream(
        dataset.train.pixels,
        dataset.train.labels,
        get_strategy(strategy),
        inputs=dataset.inputs,
        seed=config.seed,
        pool=dataset.fit,
        flip=dataset.flip,
        workers=automatic_workers(len(dataset.fit), config.workers),
        device=device,
    )


def _calibrate_if_needed(student: nn.Module, stream: Stream, config: TrainConfig) -> None:
    quantizers = [m for m in student.modules() if isinstance(m, ActivationQuantizer)]
    if not all(q.is_calibrated for q in quantizers):
        calibrate(student, first_batches(stream, config))


def _train(
    model: nn.Module,
    losses: Callable[[nn.Module], LossFunction],
    stream: Stream,
    groups: list[dict[str, Any]],
    job: Job,
    own: Sequence[Part] = (),
) -> Result:
    """Run the loop shared by teachers and students; ``losses`` takes what to call for a pass."""
    dataset, config, folder, role = job.dataset, job.config, job.folder, job.role
    device = next(model.parameters()).device

    def validate() -> float | None:
        if not len(dataset.heldout):
            return None
        return accuracy(model, dataset.train, dataset.inputs, device, dataset.heldout)

    files = None
    if folder is not None:
        metrics = folder / f"{prefix(role)}metrics.csv"
        files = (folder / "checkpoint" / f"{role}.safetensors", metrics)
    watch = _console.quiet if job.quiet else _console.track
    if not job.quiet and (known := said_of_precision(device, config)):
        _console.say(known)
    optimizers, replica = Optimizers(groups, config), replicated(model)
    first = last_stage(config) if role == "student" else 0
    kept = kept_states(model, config, validate, stream.steps(config.batch_size), first)
    shared: list[Part] = [SharedStatistics(model)] if _ranks.count() > 1 else []
    parts = [*shared, *own, *kept, *logs(own, config, folder, role)]
    run = (
        stream,
        losses(compiled(replica, config)),
        validate,
        config,
        files,
        role,
        watch,
        job.belongs,
        parts,
    )
    begin = time.monotonic()
    gradients = partial(own_gradients, replica)
    with told(config):
        history = Loop(model, optimizers, *run, own_gradients=gradients).run()
    accuracy_at_end = history[-1]["heldout_accuracy"]
    if config.reestimate_bn:
        _reestimate(model, stream, config)
        accuracy_at_end = validate()
    model.eval()
    states = {part.name: part.values for part in kept if part.values}
    return Result(model, history, accuracy_at_end, time.monotonic() - begin, states)


def _reestimate(model: nn.Module, stream: Stream, config: TrainConfig) -> None:
    """Set BatchNorm's running statistics to the means over batches of one more epoch."""
    batches = stream.epoch(config.epochs, config.batch_size)
    update_bn((images_of(b) for b in islice(batches, config.reestimate_bn)), model)


def distill(
    student: nn.Module,
    teacher: nn.Module,
    dataset: Dataset,
    *,
    strategy: str,
    config: TrainConfig | None = None,
    losses: Sequence[Weighted] | None = None,
    run_dir: str | Path | None = None,
    quiet: bool = True,
) -> Result:
    """Train a quantized student with a frozen teacher: ``a * CE + b * T^2 * KL`` [DAQAKD].

    The mixed or augmented image goes to both. Quantizers that were never calibrated start from the
    first training batches. With ``run_dir`` a checkpoint is kept, and the same call continues it.

    Args:
        student: what :func:`daqakd.quantize` returned, usually from the teacher; trained in place.
        teacher: classifier over the same classes, on the same device; used in eval mode.
        dataset: its ``fit`` images train, its ``heldout`` images validate, its ``inputs`` say how
            pixels become inputs.
        strategy: name of the augmentation.
        config: options; None for the defaults.
        losses: what is added: pairs of a loss of :mod:`daqakd.losses`, or of a module such as those
            (:class:`daqakd.losses.Loss`), and its weight. They are prepared here; parameters of
            theirs train with the student's.
        run_dir: where to keep ``checkpoint/``, ``metrics.csv`` and ``metrics.jsonl``.
        quiet: show no progress.

    Returns:
        The student in eval mode, with its history.

    Raises:
        InputError: wrong arguments, another run in ``run_dir``, or a loss that is not a number.
    """
    folder = check_run(dataset, run_dir, quiet, student=student, teacher=teacher)
    config = _checked(config, dataset, "student", student)
    check_widths(student, config)
    check_quantizer_options(student, config)
    pairs = losses_of(config, losses)
    device = device_of_model("student", student)
    stream = _stream(dataset, strategy, config, device)
    frozen = copy.deepcopy(teacher).eval().requires_grad_(False)
    with working_in(folder), laid_out(student, device), laid_out(frozen, device):
        _check_outputs("teacher", frozen, dataset)
        _calibrate_if_needed(student, stream, config)
        _check_outputs("student", student, dataset)
        own = strategy, config, student, frozen, describe(pairs)
        belongs = {} if folder is None else identity(dataset, *own)
        job = Job(dataset, config, folder, "student", quiet, belongs)
        with feature_losses(pairs, student, frozen) as further:  # hooks, then what goes by them
            if further is not None:
                further.prepare(student, frozen, dataset, stream, config)
                pretrain(further, frozen, stream, job)
            return _distill(student, frozen, stream, further, job)


def _distill(
    student: nn.Module,
    frozen: nn.Module,
    stream: Stream,
    further: FeatureLosses | None,
    job: Job,
) -> Result:
    """Train a student beside its frozen teacher, all checked."""
    config, classes = job.config, job.dataset.num_classes
    of_options = partial(distillation, teacher=compiled(frozen, config), classes=classes)
    losses = partial(of_options, config=config, further=further and further.value)
    rate = config.lr / 10 if config.quantizer_lr is None else config.quantizer_lr
    groups = param_groups(student, config.lr, config.weight_decay, rate, config.alpha_decay)
    groups += further.groups(config) if further else []
    fuse, own_widths = config.fuse == "auto", own_widths_after(student)
    with synchronised(student, config.sync_bn), fused(student, fuse), own_widths:
        own: list[Part] = [further, MeanGradients(further.trained)] if further else []
        own += student_parts(student, job.dataset, config, stream, job.quiet)
        own += delta_updates(student, of_options, stream, config)
        return _train(student, losses, stream, groups, job, own)


def teach(
    model: nn.Module,
    dataset: Dataset,
    *,
    strategy: str = "minimal",
    config: TrainConfig | None = None,
    run_dir: str | Path | None = None,
    quiet: bool = True,
) -> Result:
    """Train a full-precision teacher with cross-entropy; arguments as for :func:`distill`."""
    folder = check_run(dataset, run_dir, quiet, model=model)
    config = _checked(config, dataset, "model", model)
    device = device_of_model("model", model)
    stream = _stream(dataset, strategy, config, device)
    with working_in(folder), laid_out(model, device):
        _check_outputs("model", model, dataset)
        groups = param_groups(model, config.lr, config.weight_decay)
        losses = partial(supervised, classes=dataset.num_classes, config=config)
        belongs = {} if folder is None else identity(dataset, strategy, config, model)
        job = Job(dataset, config, folder, "teacher", quiet, belongs)
        with synchronised(model, config.sync_bn):
            return _train(model, losses, stream, groups, job)
