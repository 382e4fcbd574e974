"""The tables of a study, for the page and for Markdown."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from .evidence import MEASURES, Arm, Correlation, Evidence, Regret

NAMES = {
    "score": "score",
    "cmi": "CMI",
    "pac": "PAC",
    "cross_entropy": "cross-entropy",
    "entropy": "entropy",
    "teacher_std": "teacher std",
}


class Table(NamedTuple):
    """A heading, a header, rows of cells, and a sentence below."""

    heading: str
    header: list[str]
    rows: list[list[str]]
    note: str

    def markdown(self) -> str:
        """Return the table as Markdown."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"## {self.heading}\n\n{body}\n\n{self.note}\n"


def tables(evidence: Evidence) -> list[Table]:
    """Return the arms, the correlations and the regrets."""
    return [_arms(evidence), _correlations(evidence), _regrets(evidence)]


def _arms(evidence: Evidence) -> Table:
    seeds = sorted({seed for arm in evidence.arms for seed in arm.accuracies})
    measured = [NAMES[m] for m in MEASURES]
    header = ["", "strategy", *measured, "test accuracy", *(f"seed {s}" for s in seeds)]
    ordered = sorted(evidence.arms, key=lambda arm: -arm.mean)
    rows = [[str(place), *_arm(arm, seeds)] for place, arm in enumerate(ordered, 1)]
    note = (
        "By mean test accuracy in percent, with the standard deviation over seeds. Measures are the"
        " teacher's, before training, in nats (teacher std: a share). "
    )
    pooled = evidence.seed_deviation
    if pooled is not None:
        note += f"Over all arms the seeds' standard deviation is {100 * pooled:.2f} points."
    return Table("Arms", header, rows, note.strip())


def _arm(arm: Arm, seeds: Sequence[int]) -> list[str]:
    measured = [_number(arm.measures[m], 5 if m == "teacher_std" else 4) for m in MEASURES]
    spread = "" if arm.deviation is None else f" ± {100 * arm.deviation:.2f}"
    single = [percent(arm.accuracies.get(seed)) for seed in seeds]
    return [arm.name, *measured, f"{100 * arm.mean:.2f}{spread}", *single]


def _correlations(evidence: Evidence) -> Table:
    rows = []
    for measure, end in MEASURES.items():
        whole = evidence.correlation(measure)
        some = evidence.informative.correlation(measure)
        rows.append([NAMES[measure], "-1" if end < 0 else "1", _rho(whole), _rho(some)])
    counts = [len(evidence.arms), len(evidence.informative.arms)]
    header = ["measure", "perfect", f"rho, all {counts[0]} arms"]
    header.append(f"rho, the {counts[1]} arms with a score below 0")
    note = (
        "Spearman's rho of the measure and mean test accuracy, with its 95 % interval by 10,000"
        " resamples of the arms and of the seeds of each."
    )
    return Table("Does it predict?", header, rows, note)


def _rho(found: Correlation) -> str:
    if found.rho is None:
        return "-"
    low_high = found.interval
    shown = "" if low_high is None else f" [{low_high[0]:.2f}, {low_high[1]:.2f}]"
    return f"{found.rho:.2f}{shown}"


def _regrets(evidence: Evidence) -> Table:
    rows = [_regret(one) for one in evidence.regrets()]
    rows.append(["an arm at random", "-", f"{100 * evidence.random_regret:.2f}"])
    honest = evidence.honest_best
    if honest is not None:
        behind = 100 * (evidence.best.mean - honest)
        rows.append(["best by the other seeds", "-", f"{behind:.2f}"])
    note = (
        f"Points of mean test accuracy behind the best arm, {evidence.best.name}"
        f" ({100 * evidence.best.mean:.2f} %), with the 95 % interval over resampled seeds. That"
        " arm was chosen by these accuracies; the last row is what another run may expect of"
        " choosing so."
    )
    return Table("Regret", ["rule", "takes", "points behind"], rows, note)


def _regret(one: Regret) -> list[str]:
    shown = f"{100 * one.regret:.2f}"
    if one.interval is not None:
        shown += f" [{100 * one.interval[0]:.2f}, {100 * one.interval[1]:.2f}]"
    return [NAMES.get(one.rule, one.rule), one.arm, shown]


def _number(value: Any, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    """Return a share in percent, or a dash."""
    return "-" if share is None else f"{100 * share:.2f}"
