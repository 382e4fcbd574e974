"""``teach``: train the full-precision teacher."""

from dataclasses import dataclass

from ..train import TrainConfig
from ..train.store import ModelFile
from ._dry_run import show, teaching
from ._job import HOLDOUT, JobOptions, begin, check_strategy
from ._student import teach_into
from ._teaching import TeachGroup, teacher_config


@dataclass(frozen=True, kw_only=True)
class Options(JobOptions):
    """Options of ``teach``."""

    strategy: str = "minimal"
    """The teacher's augmentation."""
    holdout: float = HOLDOUT
    """Fraction of the training images kept for validation."""
    training: TeachGroup = TeachGroup()

    @property
    def train_config(self) -> TrainConfig:
        """The whole configuration of the training."""
        return teacher_config(self.training, seed=self.seed, workers=self.workers)

    def check(self, file: ModelFile | None) -> None:
        """Check the training's options too."""
        super().check(file)
        check_strategy(self.strategy)
        self.train_config.check()


def run(options: Options) -> None:
    """Train a teacher and keep it."""
    with begin(options, "teach", holdout=options.holdout) as (dataset, model):
        if options.dry_run:
            config, strategy = options.train_config, options.strategy
            return show(options, dataset, [teaching(options, dataset, model, config, strategy)])
        teach_into(options, dataset, options.train_config, options.strategy)
