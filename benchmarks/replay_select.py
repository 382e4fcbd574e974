"""What ``daqakd select`` would have come to in a study: ``python -m benchmarks.replay_select DIR``.

Regret against epochs, of the ranking's shortlist and of random ones, as a Markdown table and a
picture. DIR has rows/ and ranking.json; --short names the same study with fewer epochs.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from daqakd._errors import InputError
from daqakd._files import read_json, write_bytes, write_text
from daqakd.report.drawing import figure, png
from daqakd.select.replay import DRAWS, SIZES, Replayed, replay
from daqakd.study.tables import Table

NAME = "replay-select"


def read_rows(folder: Path) -> tuple[int, dict[str, dict[int, float]]]:
    """Return the epochs of a study, and its accuracies by strategy and seed.

    Raises:
        InputError: there are no rows, or they are of several lengths.
    """
    rows = [read_json(path) for path in sorted((folder / "rows").glob("*.json"))]
    lengths = {row["origin"]["epochs"] for row in rows}
    if len(lengths) != 1:
        raise InputError(f"{folder}: expected rows/ of one length, got epochs {sorted(lengths)}")
    table: dict[str, dict[int, float]] = {}
    for row in rows:
        table.setdefault(row["strategy"], {})[row["seed"]] = row["accuracy"]
    return lengths.pop(), table


def ranking_file(folder: Path) -> Path:
    """Return the ranking of a study, in its directory or where ``daqakd study`` leaves it."""
    found = [*folder.glob("ranking.json"), *folder.glob("ranking/*/ranking.json")]
    if not found:
        raise InputError(f"{folder}: has no ranking.json; name the directory of a study")
    return found[0]


def table(rows: Sequence[Replayed], lengths: Sequence[int], also: Sequence[str]) -> Table:
    """Return the rows as a table."""
    header = ["rule", "strategies", "budget, epochs", "trained", "points behind", "took the best"]
    cells = [
        [
            row.rule,
            str(row.strategies),
            str(row.budget),
            f"{row.epochs:.0f}",
            f"{round(100 * row.regret, 2) + 0.0:.2f}",  # never -0.00
            f"{row.best:.0%}",
        ]
        for row in rows
    ]
    measured = " or ".join(map(str, lengths))
    others = f" Shortlists hold {', '.join(also)} too." if also else ""
    note = (
        f"Trials have {measured} epochs, the longest of these that the plan allows; the best"
        f" strategy and the winners are judged after {max(lengths)}, winners by the seeds that"
        f" their race did not see. Every plan that trains something else is one row.{others}"
    )
    return Table("Selections replayed", header, cells, note)


def draw(rows: Sequence[Replayed]) -> bytes:
    """Return regret against epochs, a line per rule; lists of one size share a colour."""
    drawn = figure(7, 4.6)
    axes = drawn.subplots()
    rules = dict.fromkeys(row.rule for row in rows)
    colours = list(dict.fromkeys(rule.split()[-1] for rule in rules))
    for rule in rules:
        points = [(row.epochs, 100 * row.regret) for row in rows if row.rule == rule]
        style = "x--" if "random" in rule else "o-"
        colour = f"C{colours.index(rule.split()[-1])}"
        axes.plot(*zip(*points, strict=True), style, color=colour, linewidth=1, label=rule)
    axes.set(xlabel="epochs of all trials", ylabel="points behind the best strategy")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return png(drawn)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--short", type=Path, nargs="*", default=[], help="of fewer epochs")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="of shortlists")
    parser.add_argument("--also", nargs="*", default=["minimal", "trivialaugment"])
    parser.add_argument("--draws", type=int, default=DRAWS, help="of random lists")
    parser.add_argument("--out", type=Path, help="directory; default: that of the study")
    options = parser.parse_args(arguments)
    tables = dict(map(read_rows, [options.study, *options.short]))
    ranking = read_json(ranking_file(options.study))
    rows = replay(ranking, tables, options.sizes, options.also, options.draws)
    told = table(rows, sorted(tables), options.also)
    out = options.out or options.study
    write_text(out / f"{NAME}.md", f"{told.markdown()}\n![regret against epochs]({NAME}.png)\n")
    write_bytes(out / f"{NAME}.png", draw(rows))
    print(told.markdown())


if __name__ == "__main__":
    main()
