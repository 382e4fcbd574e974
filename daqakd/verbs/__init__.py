"""What each verb of the command line does."""

from collections.abc import Callable
from typing import Any

from .. import _console, options
from ..bench.run import bench_into
from ..report import report
from .common import device_of
from .doctor import doctor
from .evaluate import run_eval
from .images import run_prepare
from .jobs import run_rank, run_run, run_search, run_teach, run_train


def run_report(verb: options.Report) -> None:
    """Write the report of finished runs."""
    _console.say(f"report: {report(verb.runs, verb.out)}")


def run_bench(verb: options.Bench) -> None:
    """Time the ops."""
    device = device_of(verb.device).type
    bench_into(verb.out, verb.op, verb.size, verb.dtype, device, verb.turns, verb.images)


ACTIONS: dict[type, Callable[[Any], None]] = {
    options.Doctor: doctor,
    options.Prepare: run_prepare,
    options.Teach: run_teach,
    options.Rank: run_rank,
    options.Search: run_search,
    options.Train: run_train,
    options.Eval: run_eval,
    options.Report: run_report,
    options.Run: run_run,
    options.Bench: run_bench,
}
