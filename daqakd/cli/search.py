"""``search``: find a new strategy among compositions of two operations."""

from dataclasses import dataclass, replace
from pathlib import Path

from .. import _console
from ..ranking import SearchConfig, search
from ..train.store import ModelFile, read_model_file
from ._dry_run import searching, show
from ._job import JobOptions, begin
from ._options import SearchGroup


@dataclass(frozen=True, kw_only=True)
class Options(JobOptions):
    """Options of ``search``."""

    teacher: Path
    """Teacher: a run directory, a .safetensors file, or a .pth file with a state_dict."""
    search: SearchGroup = SearchGroup()

    @property
    def search_config(self) -> SearchConfig:
        """The whole configuration of the search."""
        return replace(self.search, seed=self.seed, workers=self.workers)

    def check(self, file: ModelFile | None) -> None:
        """Check the search's options too."""
        super().check(file)
        self.search_config.check()


def run(options: Options) -> None:
    """Search for a composition with a given teacher."""
    file = read_model_file(options.teacher)
    with begin(options, "search", file) as (dataset, teacher):
        if options.dry_run:
            return show(options, dataset, [searching(options, dataset, teacher)])
        found = search(teacher, dataset, options.search_config, run_dir=options.out, quiet=False)
        found.save(options.out)
    _console.say(found.ranking.table)
    _console.say(f"train with it: daqakd train {options.data} --strategy {found.best}")
