"""``run``: teach or take a teacher, rank, train, evaluate, report."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import tyro
from torch import nn

from .. import _console, _ranks
from .._errors import InputError
from .._files import read_json
from ..data import Dataset
from ..recipes import read as read_recipe
from ..train import TrainConfig
from ..train.schedule import scaled
from ..train.store import ModelFile, read_model_file
from ._dry_run import Stage, show, student, teaching
from ._job import begin, check_strategy, chosen_device
from ._options import OptionalPath
from ._start import student_name
from ._student import StudentOptions, teach_into, train_into
from ._teaching import PREFIX, TeacherOptions, teacher_config
from .eval import evaluate_into


@dataclass(frozen=True, kw_only=True)
class Options(StudentOptions):
    """Options of ``run``."""

    teacher: OptionalPath = None
    """An existing teacher; default: train one."""
    teaching: Annotated[TeacherOptions, tyro.conf.OmitArgPrefixes] = TeacherOptions()

    @property
    def teacher_config(self) -> TrainConfig:
        """The whole configuration of the teacher's training."""
        own = {"seed": self.seed, "workers": self.workers}
        whole = teacher_config(self.teaching, batch_size=self.training.batch_size, **own)
        return scaled(whole, self.scale)

    def check(self, file: ModelFile | None) -> None:
        """Check the teacher's options too."""
        super().check(file)
        check_strategy(self.teaching.teacher_strategy)
        try:
            self.teacher_config.check()
        except InputError as error:
            raise InputError(f"{PREFIX}{error}") from error


def run(options: Options) -> None:
    """Teach or take a teacher, rank, train, evaluate, report."""
    given = None if options.teacher is None else read_model_file(options.teacher)
    with begin(options, "run", given, options.holdout) as (dataset, model):
        if options.dry_run:
            return show(options, dataset, stages(options, given, dataset, model))
        if given is None:
            strategy = options.teaching.teacher_strategy
            path = teach_into(options, dataset, options.teacher_config, strategy)
            given = read_model_file(path)
            model = options.new_model(given, dataset)
        path = train_into(options, given, model, dataset)
        files = {"teacher": given, "student": read_model_file(path, "student")}
        names = {"teacher": options.model_name(given), "student": student_name(options, given)}
        if not (options.out / "eval.json").exists():
            evaluate_into(options.out, files, names, dataset, chosen_device(options.device))
        if options.recipe is not None:
            _console.say(_compared(options, read_json(options.out / "eval.json")))
        if _ranks.is_writer():
            _report(options.out, names["student"])


def stages(
    options: Options, given: ModelFile | None, dataset: Dataset, model: nn.Module
) -> list[Stage]:
    """Return what there is to do."""
    first, strategy = [], options.teaching.teacher_strategy
    if given is None:
        first = [teaching(options, dataset, model, options.teacher_config, strategy)]
    return [*first, *student(options, dataset, model, given)]


def _compared(options: Options, evaluation: dict[str, float]) -> str:
    """Say how far a recipe's student came, and how much of its schedule was run."""
    recipe = read_recipe(str(options.recipe))
    reached, done = evaluation["student_accuracy"], options.train_config.epochs
    whole = options.training.epochs
    part = "" if done == whole else f", after {done} of {whole} epochs (--scale {options.scale:g})"
    return f"recipe {recipe.name}: {reached:.2%}{part}; published, %: {recipe.figure}"


def _report(out: Path, name: str) -> None:
    if find_spec("matplotlib") is None:
        _console.say("report: skipped, it needs matplotlib (pip install 'daqakd[report]')")
        return
    from ..report import report

    _console.say(f"report: {report([out], model=name)}")
