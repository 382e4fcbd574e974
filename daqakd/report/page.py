"""One self-contained HTML page about one or several runs."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from torch import nn

from .._arguments import path_of
from .._errors import InputError, seen
from .._files import write_text
from ..quant import summary
from ..quant.grids import quantized_layers
from ..ranking.picture import draw_plane, draw_scores
from ..recipes import names, read
from ..train import TrainConfig
from ..train.options_file import to_toml
from . import figures
from .comparison import comparisons, title_of
from .html import page, percent, picture, pictures, table
from .quantization import quantization
from .record import RunRecord, read_run


def _facts(run: RunRecord) -> str:
    found = run.evaluation
    items = {
        "teacher's test accuracy": percent(found.get("teacher_accuracy")),
        "student's test accuracy": percent(found.get("student_accuracy")),
        "strategy": run.strategy or "-",
    }
    items |= _experiment(run)
    if run.student is not None:
        items["packed weights"] = f"{summary(run.student).bytes / 1024:.0f} KiB"
        items["of full precision"] = f"{_full_bytes(run.student) / 1024:.0f} KiB"
    cells = "".join(f"<div><b>{escape(v)}</b>{escape(k)}</div>" for k, v in items.items())
    return f'<div class="facts">{cells}</div>'


def _experiment(run: RunRecord) -> dict[str, str]:
    """Return the recipe that was run with its published figure, and how much of its schedule."""
    options = run.config.get("run") or run.config.get("train") or {}
    found, scale = {}, options.get("scale", 1.0)
    name = options.get("recipe", "None")
    if name in names():
        recipe = read(name)
        found = {"recipe": name, "published top-1, %": recipe.figure}
    if scale != 1:
        whole = options.get("epochs", TrainConfig.epochs)
        found["of the schedule"] = f"{scale:g} ({len(run.metrics['student'])} of {whole} epochs)"
    return found


def _full_bytes(student: nn.Module) -> int:
    """Return the bytes of all weights in float32."""
    return sum(4 * p.numel() for n, p in student.named_parameters() if n.endswith("weight"))


RANKING_HEADER = ["strategy", "score", "95 % interval", "CMI", "PAC", "CE", "accuracy", "entropy"]
RANKING_HEADER += ["teacher std", "images", "seconds"]


def _ranking_row(row: dict[str, Any], tied: bool) -> list[str]:
    """Return the cells of one strategy of ``ranking.json``."""
    low, high = row["score_ci95"]
    return [
        f"{row['name']}{' (tied)' if tied else ''}",
        f"{row['score']:.4f}",
        f"[{low:.4f}, {high:.4f}]",
        *(f"{row[key]:.4f}" for key in ("cmi", "pac", "cross_entropy")),
        percent(row["accuracy"]),
        f"{row['entropy']:.4f}",
        "-" if row["teacher_std"] is None else f"{row['teacher_std']:.5f}",
        f"{row['images']:,}",
        f"{row['seconds']:.1f}",
    ]


def _ranking(ranking: dict[str, Any]) -> str:
    rows = [_ranking_row(row, row["name"] in ranking["tied"]) for row in ranking["strategies"]]
    pipeline = ranking.get("pipeline")
    crops = f" in resized crops of {pipeline['size']} x {pipeline['size']}" if pipeline else ""
    note = (
        f"score = PAC - CMI in nats, lower is better; {ranking['images']:,} training images{crops};"
        " jackknife intervals over 10 folds; tied: the paired difference may be 0"
    )
    panels = {"scores with 95 % intervals": draw_scores, "CMI against PAC": draw_plane}
    shown = pictures({what: draw(ranking) for what, draw in panels.items()})
    scores = table(RANKING_HEADER, rows, best=0)
    return f'<h2>Ranking</h2>{shown}{scores}<p class="note">{escape(note)}</p>'


def _training(run: RunRecord) -> str:
    if not any(run.metrics.values()):
        return ""
    return f"<h2>Training</h2>{pictures(figures.curves(run.metrics))}"


LAYERS_HEADER = ["layer", "W bits", "A bits", "method", "per", "W step", "A step", "MACs", "bytes"]
LAYERS_HEADER += ["BitOps"]


def _layer_row(layer: dict[str, Any]) -> list[Any]:
    """Return the cells of one layer of a :class:`~daqakd.quant.layer_summary.Summary`."""
    levels = layer["weight_levels"]
    return [
        layer["name"],
        f"{layer['weight_bits']}{'' if levels is None else f' ({levels} levels)'}",
        *(layer[key] for key in ("act_bits", "method", "granularity")),
        *("-" if layer[k] is None else f"{layer[k]:.3g}" for k in ("weight_step", "act_step")),
        *("-" if layer[k] is None else f"{layer[k]:,}" for k in ("macs", "bytes", "bit_ops")),
    ]


def _layers(student: nn.Module) -> str:
    found = summary(student)
    total = ["total", *[""] * 6, f"{found.macs:,}", f"{found.bytes:,}", f"{found.bit_ops:,}"]
    rows = table(LAYERS_HEADER, [*map(_layer_row, found.records()), total])
    notes = "".join(
        f"<li>{escape(layer.name)}: {escape(layer.note)}</li>"
        for layer in found.layers
        if layer.note
    )
    return f"<h2>Layers</h2>{rows}<ul>{notes}</ul>"


def _weights(student: nn.Module) -> str:
    shown = ""
    if quantized_layers(student):
        shown = picture(figures.weights(student), "weights before and after quantization")
    return (
        f"<h2>Weights</h2>{shown}<p class='note'>grey: weights before quantization (density);"
        " orange: fraction of the weights at each level after it</p>"
    )


def _origin(run: RunRecord) -> str:
    env = run.environment
    packages = ", ".join(f"{k} {v}" for k, v in env.get("packages", {}).items() if v)
    machine = f"{env.get('processor')}, {env.get('cores')} cores, GPU: {env.get('gpu') or 'none'}"
    facts = [
        f"{env.get('date')}; Python {env.get('python')}; {packages}",
        f"{machine}; {env.get('platform')}",
    ]
    return (
        "<h2>Environment and commands</h2>"
        + "".join(f"<p>{escape(f)}</p>" for f in facts)
        + f"<pre>{escape(str(env.get('command')))}</pre>"
        + f"<pre>{escape(to_toml(run.config).strip())}</pre>"
    )


def _heading(run: RunRecord) -> str:
    return f"<h1>{escape(run.folder.name)}</h1><p>{escape(title_of(run))}</p>"


def _run(run: RunRecord) -> str:
    ranking = "" if run.ranking is None else _ranking(run.ranking)
    student = "" if run.student is None else _layers(run.student) + _weights(run.student)
    return f"{_facts(run)}{ranking}{_training(run)}{quantization(run)}{student}{_origin(run)}"


def report(
    folders: Sequence[str | Path], out: str | Path | None = None, model: str | None = None
) -> Path:
    """Write one HTML page about one or several runs, with every picture inside it.

    Args:
        folders: run directories.
        out: the file; None for ``report.html`` in the first run.
        model: ``package.module:function`` of students whose file names it.

    Returns:
        The file's path.

    Raises:
        InputError: a folder is not a run, or matplotlib is missing.
    """
    if isinstance(folders, str | Path) or not isinstance(folders, Sequence) or not folders:
        raise InputError(f"folders: expected a list of run directories, got {seen(folders)}")
    runs = [read_run(path_of("folders", folder), model) for folder in folders]
    try:
        body = comparisons(runs) + "<hr>".join(f"{_heading(run)}{_run(run)}" for run in runs)
    except ImportError as error:
        raise InputError("report needs matplotlib: pip install 'daqakd[report]'") from error
    path = path_of("out", out) if out is not None else runs[0].folder / "report.html"
    titles = dict.fromkeys(title_of(run) or run.folder.name for run in runs)
    write_text(path, page("; ".join(titles), body))
    return path
