"""The losses beside cross-entropy and KL in a run: what they read, train, count and resume."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .. import _ranks
from .._config import is_number
from .._errors import InputError, first_line, seen
from ..augment import Batch, Stream
from ..augment.draws import PARAMETERS, philox
from ..data import Dataset
from ..losses import LOSSES, WEIGHTS
from ..losses.base import DistillationLoss, Setup, named_taps
from ..losses.taps import Taps
from ..models import evaluating, logits_of
from .config import TrainConfig
from .objective import images_of
from .optimizers import LOSSES as GROUP
from .part import Part

Weighted = tuple[nn.Module, float]


@dataclass(frozen=True)
class Term:
    """A loss, its column, its weight, and the taps of either model that it reads."""

    name: str
    loss: Any
    weight: float
    student: list[str]
    teacher: list[str]


def losses_of(config: TrainConfig, given: object) -> list[Weighted]:
    """Return the losses that were passed, and the one that the options name.

    Raises:
        InputError: they are not pairs of a loss and a weight.
    """
    pairs = [_checked(one) for one in _listed(given)]
    if config.kd is not None:
        loss = LOSSES[config.kd](taps=config.taps or None)
        weight = WEIGHTS[config.kd] if config.kd_loss_weight is None else config.kd_loss_weight
        pairs.append((loss, weight))
    return pairs


def _listed(given: object) -> Sequence[object]:
    if given is None:
        return ()
    if isinstance(given, Sequence) and not isinstance(given, str):
        return given
    raise InputError(f"losses: expected a list of (loss, weight), got {seen(given)}")


def _checked(pair: object) -> Weighted:
    if not isinstance(pair, Sequence) or len(pair) != 2 or not is_number(pair[1]) or pair[1] < 0:
        raise InputError(
            f"losses: expected pairs of a loss and a weight from 0 on, got {seen(pair)}"
        )
    loss = pair[0]
    if not isinstance(loss, nn.Module):
        raise InputError(f"losses: expected a torch.nn.Module, got {seen(loss)}")
    if not isinstance(loss, DistillationLoss):
        if not hasattr(loss, "taps"):
            raise InputError(
                f"losses: {type(loss).__name__} has no taps; name the modules that it compares, as"
                " a list of names"
            )
        named_taps(loss.taps)
    return loss, float(pair[1])


def describe(pairs: Sequence[Weighted]) -> list[str]:
    """Return what a checkpoint tells of a run's losses, prepared before or not."""
    return [f"{type(loss).__name__}({_settings(loss)}) x {weight:g}" for loss, weight in pairs]


def _settings(loss: Any) -> str:
    own: str = loss.extra_repr()
    return own if isinstance(loss, DistillationLoss) else f"taps={list(loss.taps)}"


class FeatureLosses(Part):
    """Prepares the losses, adds up their weighted values, and keeps their state.

    Args:
        pairs: losses with their weights.
        student: in training, calibrated; hooks on it stay until :meth:`remove`.
        teacher: likewise, frozen.
    """

    name = GROUP

    def __init__(self, pairs: Sequence[Weighted], student: nn.Module, teacher: nn.Module) -> None:
        self.terms: list[Term] = []
        for loss, weight in pairs:
            both = _taps_of(loss, student, teacher)
            self.terms.append(Term(self._column(loss), loss, weight, *both))
        self.modules = nn.ModuleList(term.loss for term in self.terms)
        self.taps = (
            Taps(student, [tap for term in self.terms for tap in term.student]),
            Taps(teacher, [tap for term in self.terms for tap in term.teacher]),
        )
        self.rewrites = any(_begins_epochs(term.loss) for term in self.terms)
        device = next(student.parameters()).device
        self.totals = torch.zeros(len(self.terms) + 1, dtype=torch.float64, device=device)

    def _column(self, loss: nn.Module) -> str:
        name = type(loss).__name__.lower()
        like = sum(term.name.rstrip("0123456789") == name for term in self.terms)
        return f"{name}{like + 1}" if like else name

    def prepare(
        self,
        student: nn.Module,
        teacher: nn.Module,
        dataset: Dataset,
        stream: Stream,
        config: TrainConfig,
    ) -> None:
        """Make the losses' parameters from the first training images, and try each once.

        Raises:
            InputError: a loss cannot be computed with these models or images.
        """
        batch = next(iter(stream.epoch(0, config.batch_size)))
        words = philox(config.seed, 0, torch.tensor(0), PARAMETERS)
        with torch.random.fork_rng(), torch.no_grad():
            with evaluating(student):
                logits = [logits_of(model(images_of(batch))) for model in (student, teacher)]
            torch.manual_seed(int(words[0]))
            for term in self.terms:
                own, wanted = self._maps(term, *logits)
                images = dataset.train.labels.cpu(), dataset.fit.cpu(), dataset.num_classes
                setup = Setup(student, teacher, own, wanted, batch, *images, config.seed)
                self._prepare(term, setup)
        self.modules.to(batch.images.device).train()

    def _prepare(self, term: Term, setup: Setup) -> None:
        name = type(term.loss).__name__
        try:
            if hasattr(term.loss, "prepare"):
                term.loss.prepare(setup)
            term.loss.to(setup.batch.images.device)
            with evaluating(term.loss):
                value = term.loss(setup.student, setup.teacher, setup.batch)
        except InputError:
            raise
        except Exception as error:  # whatever a user's loss raises
            raise InputError(
                f"losses: {name} fails on the first training images ({first_line(error)}); mend"
                " it, or name other taps"
            ) from error
        if not isinstance(value, Tensor) or value.shape != ():
            raise InputError(
                f"losses: {name} returned {seen(value)}, expected a tensor [] for a batch"
            )

    def _maps(
        self, term: Term, student: Tensor, teacher: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        own, wanted = self.taps
        return own.read(term.student, student), wanted.read(term.teacher, teacher)

    def value(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """Return the weighted sum for the batch that both models gave these logits for."""
        values = [term.loss(*self._maps(term, student, teacher), batch) for term in self.terms]
        for taps in self.taps:
            taps.clear()
        ones = [value.detach().double() for value in values]
        self.totals += torch.stack([*ones, torch.ones_like(ones[0])])
        weighted = [term.weight * v for term, v in zip(self.terms, values, strict=True)]
        return torch.stack(weighted).sum()

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that train with the student's."""
        sources = (getattr(one, "trained_parameters", one.parameters) for one in self.modules)
        return [p for source in sources for p in source() if p.requires_grad]

    def groups(self, config: TrainConfig) -> list[dict[str, Any]]:
        """Return the optimizer's group of these, if there are any."""
        options = {"lr": config.lr, "weight_decay": config.weight_decay, "name": GROUP}
        return [{"params": self.trained} | options] if self.trained else []

    def before_epoch(self, epoch: int) -> None:
        """Tell the losses, and let go of what evaluation left at the taps."""
        for term in self.terms:
            if _begins_epochs(term.loss):
                term.loss.begin_epoch(epoch)
        for taps in self.taps:
            taps.clear()

    def end_epoch(self, epoch: int, accuracy: float | None) -> dict[str, float | None]:
        """Return the means of the losses, unweighted."""
        rows = _ranks.stacked(self.totals)
        *sums, count = (rows.sum(0) if rows.dim() > 1 else rows).tolist()
        self.totals.zero_()
        names = (term.name for term in self.terms)
        return {n: s / count if count else None for n, s in zip(names, sums, strict=True)}

    def tensors(self) -> dict[str, Tensor]:
        """Return the losses' state and the sums of the epoch."""
        own = {f"modules.{k}": v for k, v in self.modules.state_dict().items()}
        return own | {"totals": _ranks.stacked(self.totals)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take them back."""
        self.totals.copy_(_ranks.unstacked(tensors["totals"], 1))
        start = "modules."
        own = {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
        self.modules.load_state_dict(own)

    def remove(self) -> None:
        """Take the hooks off both models."""
        for taps in self.taps:
            taps.remove()


def _begins_epochs(loss: nn.Module) -> bool:
    """Return whether a loss is another in each epoch, so that no recorded step outlives one."""
    own = getattr(type(loss), "begin_epoch", None)
    return own is not None and own is not DistillationLoss.begin_epoch


def _taps_of(loss: Any, student: nn.Module, teacher: nn.Module) -> tuple[list[str], list[str]]:
    if isinstance(loss, DistillationLoss):
        return loss.taps_of(student, teacher)
    return [*loss.taps], [*loss.taps]


@contextmanager
def feature_losses(
    pairs: Sequence[Weighted], student: nn.Module, teacher: nn.Module
) -> Iterator[FeatureLosses | None]:
    """Watch both models' taps within the block; None where there is nothing to compare."""
    if not pairs:
        yield None
        return
    losses = FeatureLosses(pairs, student, teacher)
    try:
        yield losses
    finally:
        losses.remove()
