"""``RankConfig`` and ``SearchConfig``: every option of a ranking and of a search, declared once."""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar

import torch

from .._config import check_least, check_most, check_types, check_workers, config_of
from .._errors import InputError, unknown
from ..augment import PAPER, InputSpec, get_strategy
from ..data import Dataset
from .criterion import SCORE, STD, STD_PASSES, Criterion, check_criterion

MOST_COMPOSITIONS = MOST_PASSES = 10000
INPUT_FIELDS = frozenset(field.name for field in fields(InputSpec))


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """What rankings and searches share: the images, the score, the teacher's arithmetic."""

    images: int | None = None
    """Rank on a stratified subset of this many images; default: all."""
    seed: int = 0
    """Of draws, subset and folds; 64 bits."""
    cmi_weight: float = 1.0
    """Weight of CMI in the score."""
    pac_weight: float = 1.0
    """Weight of PAC in the score."""
    teacher_dtype: Literal["float32", "bfloat16"] = "float32"
    """The teacher's arithmetic while ranking; bfloat16 is autocast, its logits go on as float32."""
    workers: int | None = None
    """Processes that run registered transforms; chosen from the size of the set by default."""

    def __post_init__(self) -> None:
        if isinstance(self.teacher_dtype, torch.dtype):
            name = str(self.teacher_dtype).removeprefix("torch.")
            object.__setattr__(self, "teacher_dtype", name)

    @property
    def dtype(self) -> torch.dtype:
        """The teacher's dtype."""
        dtype: torch.dtype = getattr(torch, self.teacher_dtype)
        return dtype

    @property
    def rule(self) -> Criterion:
        """What is minimised."""
        return Criterion(self.cmi_weight, self.pac_weight, None)

    def check(self) -> None:
        """Raise InputError for values that cannot be meant, wrong types included."""
        check_types(self)
        check_least(self, 1, "images")
        check_workers(self)


@dataclass(frozen=True, kw_only=True)
class RankConfig(ScoreConfig):
    """Options of :func:`daqakd.rank`."""

    strategies: tuple[str, ...] | None = None
    """Strategies to rank; default: the paper's seven."""
    criterion: str = SCORE
    """What decides, lower is better: score, negative_cmi, pac, cross_entropy, std (the deviation of
    the teacher's mean probabilities), or package.module:function of the measures."""
    passes: int | None = None
    """Augmented passes per strategy, pooled; by default 1, and 10 for --criterion std."""
    pac_limit: float | None = None
    """Take the highest CMI among strategies with PAC up to this many nats."""
    budget: float | None = None
    """Stop ranking after this many seconds; a larger budget continues."""
    until_sure: bool = False
    """Stop once the best is separated from all others; those separated on the way are dropped."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.strategies, list):
            object.__setattr__(self, "strategies", tuple(self.strategies))

    @property
    def names(self) -> list[str]:
        """The strategies' names, each once."""
        return list(dict.fromkeys(PAPER if self.strategies is None else self.strategies))

    @property
    def rule(self) -> Criterion:
        """What is minimised."""
        return Criterion(self.cmi_weight, self.pac_weight, self.pac_limit, self.criterion)

    @property
    def num_passes(self) -> int:
        """How many passes there are."""
        if self.passes is not None:
            return self.passes
        return STD_PASSES if self.criterion == STD else 1

    @property
    def may_end_early(self) -> bool:
        """Whether the ranking may end before all images are seen."""
        return self.until_sure or self.budget is not None

    def check(self) -> None:
        """Raise InputError for values that cannot be meant, wrong types included."""
        super().check()
        check_least(self, 1, "passes")
        check_most(self, MOST_PASSES, "passes")
        check_least(self, 0, "pac_limit")
        check_criterion(self.criterion)
        if self.criterion != SCORE and self.pac_limit is not None:
            raise InputError(
                f"pac_limit: is a rule of its own, and criterion is {self.criterion}; drop one of"
                " the two"
            )
        if self.budget is not None and not self.budget > 0:
            raise InputError(f"budget: expected more than 0 seconds, got {self.budget}")
        if not self.names:
            raise InputError("strategies: need at least one")
        for name in self.names:
            get_strategy(name)
        if self.until_sure and len(self.names) < 2:
            raise InputError("until_sure: needs two strategies or more, got 1; name another")
        if self.until_sure and self.pac_limit is not None:
            raise InputError(
                "until_sure: separates scores, and pac_limit does not decide by the score alone;"
                " drop one of the two"
            )
        if self.may_end_early and self.criterion == STD:
            raise InputError(
                "criterion: std compares groups of images over whole passes; drop --budget and"
                " --until-sure"
            )


@dataclass(frozen=True, kw_only=True)
class SearchConfig(ScoreConfig):
    """Options of :func:`daqakd.search`; ``images`` are those of the last rung."""

    compositions: int = 100
    """How many to draw; half of them stay in each rung, on about twice as many images."""

    def check(self) -> None:
        """Raise InputError for values that cannot be meant, wrong types included."""
        super().check()
        if not 2 <= self.compositions <= MOST_COMPOSITIONS:
            raise InputError(
                f"compositions: expected 2 to {MOST_COMPOSITIONS}, got {self.compositions}"
            )


Config = TypeVar("Config", bound=ScoreConfig)


def resolve(
    kind: type[Config], config: Config | None, dataset: Dataset, options: dict[str, Any]
) -> tuple[Config, Dataset]:
    """Return the checked configuration and the data set with ``options`` applied.

    ``options`` are fields of the configuration, or of the data set's ``InputSpec``.
    """
    changes = {k: v for k, v in options.items() if k in INPUT_FIELDS}
    rest = {k: v for k, v in options.items() if k not in INPUT_FIELDS}
    base = config_of(kind, config)
    known = [field.name for field in fields(kind)]
    for name in rest:
        if name not in known:
            raise unknown("option", name, [*known, *INPUT_FIELDS])
    resolved = replace(base, **rest)
    resolved.check()
    return resolved, dataset.with_inputs(**changes) if changes else dataset
