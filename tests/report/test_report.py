"""The report: one page, nothing outside it, every section where there is something to show."""

import json
import re

import pytest
import torch

import daqakd
from daqakd import InputError, TrainConfig
from daqakd._files import read_tensors, write_json, write_tensors
from daqakd.models import build
from daqakd.report import report
from daqakd.train.epoch_log import JSONLines
from daqakd.train.options_file import keep_options
from daqakd.train.store import save_model

from ..helpers.small import small_dataset

matplotlib = pytest.importorskip("matplotlib")


def write_run(folder, strategy, accuracy):
    """A run directory of a student that was never trained, with one epoch of metrics."""
    dataset = small_dataset()
    student = daqakd.quantize(build("resnet20", 3), weight_bits=2, act_bits=2)
    daqakd.calibrate(student, torch.randn(2, 3, 16, 16))
    recipe = {"weight_bits": 2, "act_bits": 2}
    keep_options(
        folder / "config.toml",
        "run",
        {"data": "small <set>", "teacher": "t.pth", **vars(TrainConfig())},
    )
    save_model(folder / "student.safetensors", student, "resnet20", dataset, recipe, strategy)
    header = "epoch,loss,ce,kl,accuracy,heldout_accuracy,lr\n"
    (folder / "metrics.csv").write_text(header + "1,2.0,1.0,0.5,0.4,0.5,0.001\n")
    write_json(folder / "eval.json", {"student_accuracy": accuracy, "teacher_accuracy": 0.9})
    names = ["minimal", "cutmix"]
    rows = [
        {"name": n, "score": -0.1 * i, "score_ci95": [-0.1 * i - 0.01, -0.1 * i + 0.01]}
        | dict.fromkeys(("cmi", "pac", "cross_entropy", "entropy", "teacher_std"), 0.1)
        | {"accuracy": None, "images": 100, "seconds": 1.0}
        for i, n in enumerate(names)
    ]
    ranking = {"best": "minimal", "tied": ["cutmix"], "images": 100, "strategies": rows}
    write_json(folder / "ranking.json", ranking)
    return folder


def test_one_page_holds_everything(tmp_path):
    page = report([write_run(tmp_path / "a", "minimal", 0.6)]).read_text()
    for heading in ("Ranking", "Training", "Layers", "Weights", "Environment and commands"):
        assert f"<h2>{heading}</h2>" in page
    assert "Score against accuracy" not in page
    assert page.count("data:image/png;base64,") == 5
    assert not re.search(r'(src|href)="(?!data:)', page), "the page needs something outside it"
    assert "small &lt;set&gt;" in page
    assert "small <set>" not in page
    assert "60.00%" in page
    assert "cutmix (tied)" in page


def test_several_runs_compare_score_and_accuracy(tmp_path):
    runs = [write_run(tmp_path / n, n, a) for n, a in (("minimal", 0.6), ("cutmix", 0.7))]
    page = report(runs, tmp_path / "all.html").read_text()
    assert "Score against accuracy: small: resnet20 W2A2 lsq" in page
    assert page.count("data:image/png;base64,") == 11


def set_teacher(folder, digest):
    """Let a student's checkpoint name its teacher's weights."""
    progress = {"epoch": 1, "teacher": digest}
    path = folder / "checkpoint" / "student.safetensors"
    write_tensors(path, {"a": torch.zeros(1)}, {"place": json.dumps(progress)})
    return folder


def test_only_runs_of_one_setting_are_compared(tmp_path):
    """Three seeds of two strategies with one teacher; a third strategy with another."""
    runs = []
    for i, (name, accuracy) in enumerate(
        [("minimal", 0.6), ("minimal", 0.64), ("cutmix", 0.7), ("cutmix", 0.7)]
    ):
        runs.append(set_teacher(write_run(tmp_path / f"a{i}", name, accuracy), "one"))
    other = set_teacher(write_run(tmp_path / "b", "trivialaugment", 0.9), "another")
    page = report([*runs, other], tmp_path / "all.html").read_text()
    assert page.count("<h2>Score against accuracy") == 1
    section = page[: page.index("<h1>")]
    assert "<td>minimal</td><td>-0.0000</td><td>62.00 ± 2.83</td><td>2</td>" in section
    assert "<td>cutmix</td><td>-0.1000</td><td>70.00 ± 0.00</td><td>2</td>" in section
    assert "trivialaugment" not in section
    assert "± is the standard deviation" in section


@pytest.mark.parametrize("change", ["classes", "dataset", "quantize"])
def test_what_tells_runs_apart(tmp_path, change):
    runs = [write_run(tmp_path / n, n, a) for n, a in (("minimal", 0.6), ("cutmix", 0.7))]
    path = runs[1] / "student.safetensors"
    tensors, facts = read_tensors(path)
    recipe = '{"weight_bits": 4, "act_bits": 4}'
    new = {"classes": '["a", "b", "c"]', "dataset": "other", "quantize": recipe}
    write_tensors(path, tensors, facts | {change: new[change]})
    page = report(runs, tmp_path / "all.html").read_text()
    assert "<h2>Score against accuracy" not in page


def test_the_title_names_data_model_and_bits(tmp_path):
    runs = [write_run(tmp_path / n, n, a) for n, a in (("minimal", 0.6), ("cutmix", 0.7))]
    page = report(runs, tmp_path / "all.html").read_text()
    assert "<title>DAQAKD: small: resnet20 W2A2 lsq</title>" in page
    assert "<h1>cutmix</h1><p>small: resnet20 W2A2 lsq</p>" in page


def write_records(folder, epochs, step=0.5):
    log = JSONLines(folder / "metrics.jsonl", lambda: {"quantizers": quantizers, "names": names})
    weight = {"step": step, "parameters": {"step": [0.25, 1.0]}, "oscillating": 0.125}
    act = {"step": None, "parameters": {}, "clipped": 0.0625}
    quantizers = {"c.weight_quantizer": weight, "c.act_quantizer": act}
    names = {"no_gradient": ["c.bias"], "at_floor": []}
    for epoch in range(1, epochs + 1):
        log.after_epoch({"epoch": epoch, "oscillating": 0.125, "clipped": 0.5 ** (4 + epoch)})


@pytest.mark.parametrize("step", [0.5, -1.0])
def test_quantization_has_curves_and_a_table(tmp_path, step):
    folder = write_run(tmp_path / "a", "minimal", 0.6)
    write_records(folder, 3, step)
    page = report([folder]).read_text()
    assert page.count("data:image/png;base64,") == 7
    weight = ["c.weight_quantizer", f"{step:.3g}", f"{step:.3g}", "step 0.25 to 1", "12.50%", "-"]
    for row in (weight, ["c.act_quantizer", "-", "-", "-", "-", "6.25%"]):
        assert f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" in page
    assert "<li>without a gradient: c.bias</li>" in page
    assert "at the floor" not in page


def test_a_ranking_alone_is_worth_a_page(tmp_path):
    folder = write_run(tmp_path / "a", "minimal", 0.6)
    for name in ("student.safetensors", "metrics.csv", "eval.json"):
        (folder / name).unlink()
    page = report([folder]).read_text()
    assert "<h2>Ranking</h2>" in page
    assert "<h2>Layers</h2>" not in page


def test_what_is_no_run_says_so(tmp_path):
    with pytest.raises(InputError, match=r"config\.toml: cannot be read"):
        report([tmp_path])
    keep_options(tmp_path / "config.toml", "run", {"data": "x"})
    with pytest.raises(InputError, match="nothing to report"):
        report([tmp_path])


def test_packed_size_is_a_fraction_of_full_precision(tmp_path):
    folder = write_run(tmp_path / "a", "minimal", 0.6)
    page = report([folder]).read_text()
    packed, full = (int(v) for v in re.findall(r"<b>(\d+) KiB</b>", page))
    assert packed < full / 12
    assert json.loads((folder / "eval.json").read_text())["student_accuracy"] == 0.6
