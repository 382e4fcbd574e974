"""``rank``: rank augmentation strategies from a given teacher."""

from dataclasses import dataclass
from pathlib import Path

from ..train.store import read_model_file
from ._dry_run import ranking, show
from ._job import begin
from ._student import RankOptions, rank_into


@dataclass(frozen=True, kw_only=True)
class Options(RankOptions):
    """Options of ``rank``."""

    teacher: Path
    """Teacher: a run directory, a .safetensors file, or a .pth file with a state_dict."""


def run(options: Options) -> None:
    """Rank with a given teacher."""
    file = read_model_file(options.teacher)
    with begin(options, "rank", file) as (dataset, teacher):
        if options.dry_run:
            return show(options, dataset, [ranking(options, dataset, teacher)[0]])
        rank_into(options, teacher, dataset)
