"""A sweep in a directory: rows equal single runs, a kill and other workers cost nothing."""

import json
import re
import shutil
import threading

import pytest

from daqakd import InputError
from daqakd._lock import working_in
from daqakd.cli.main import main
from daqakd.sweep import Row, work
from daqakd.sweep.table import TABLE, read_table

from ..helpers.refusals import fails
from .conftest import MODEL

NAME = "weight_bits=2,act_bits=2,strategy={},seed={}"
GRID = '[grid]\nbits = [2]\nstrategies = ["minimal", "cutmix"]\nseeds = [0, 1]\n'


def sweep_file(path, tree, teacher, grid=GRID, **options):
    shared = {"data": str(tree), "teacher": str(teacher), "model": MODEL, "epochs": 2}
    shared |= {"batch_size": 16, **options}
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in shared.items()]
    path.write_text(f"[options]\n{''.join(lines)}{grid}")
    return path


@pytest.fixture(scope="module")
def swept(tree, teacher, tmp_path_factory):
    """A whole sweep that ranked first, and its file."""
    folder = tmp_path_factory.mktemp("sweep")
    file = sweep_file(folder / "sweep.toml", tree, teacher)
    assert main(["sweep", str(file), "--out", str(folder / "out"), "--rank-first"]) == 0
    return file, folder / "out"


def test_every_row_equals_the_single_run(swept, tree, teacher, tmp_path):
    rows = read_table(swept[1] / TABLE)
    assert [row["run"] for row in rows] == [
        NAME.format(s, n) for s in ("minimal", "cutmix") for n in (0, 1)
    ]
    line = ["run", str(tree), "--teacher", str(teacher), "--model", MODEL, "--epochs", "2"]
    line += ["--batch-size", "16", "-w", "2", "-a", "2", "--strategy", "cutmix", "--seed", "1"]
    assert main([*line, "--out", str(tmp_path)]) == 0
    for name in ("student.safetensors", "metrics.csv", "eval.json", "config.toml"):
        assert (swept[1] / "runs" / rows[3]["run"] / name).read_bytes() == (
            tmp_path / name
        ).read_bytes()
    told = json.loads((tmp_path / "eval.json").read_text())
    assert rows[3]["student_accuracy"] == str(told["student_accuracy"])


def test_the_page_has_it_all(swept):
    page = (swept[1] / "sweep.html").read_text()
    for heading in ("Accuracy", "Tests over seeds", "Score against accuracy", "Learning curves"):
        assert f"<h2>{heading}</h2>" in page
    assert "4 of 4 rows are finished" in page
    assert re.search(r'<td>(minimal|cutmix)</td><td class="best">\d+\.\d\d ± \d+\.\d\d</td>', page)
    assert "W2A2: rho " in page
    assert not re.search(r"<td>0\.\d{5}", page), "accuracies are shown in percent"
    assert len(re.findall(r"<td>\d+\.\d\d%</td>", page)) >= 3 * 4
    assert not re.search(r'(src|href)="(?!data:)', page), "the page needs something outside it"
    ranking = json.loads((swept[1] / "ranking" / "all" / "ranking.json").read_text())
    assert {row["name"] for row in ranking["strategies"]} == {"minimal", "cutmix"}


def test_only_what_is_missing_is_run_again(swept, capsys):
    file, out = swept
    before = {p: p.stat().st_mtime_ns for p in out.glob("runs/*/student.safetensors")}
    table = (out / TABLE).read_bytes()
    shutil.rmtree(out / "runs" / NAME.format("cutmix", 0))
    (out / TABLE).unlink()
    assert main(["sweep", str(file), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert re.findall("^row (.*)$", said, re.M) == [NAME.format("cutmix", 0)]
    assert (out / TABLE).read_bytes() == table
    after = {p: p.stat().st_mtime_ns for p in out.glob("runs/*/student.safetensors")}
    assert [p for p in before if before[p] != after[p]] == [
        out / "runs" / NAME.format("cutmix", 0) / "student.safetensors"
    ]


def rows_of(*names):
    return [Row(name, {"seed": name}, {}) for name in names]


def finish(folder):
    folder.mkdir(exist_ok=True)
    (folder / "eval.json").write_text('{"student_accuracy": 0.5}')


def test_a_row_that_another_worker_holds_is_left_to_it(tmp_path):
    """Another thread's lock is another worker's; the row is looked at again later."""
    seen, begun, end = [], threading.Event(), threading.Event()

    def run(row, folder):
        seen.append(row.name)
        finish(folder)

    def hold():
        with working_in(tmp_path / "runs" / "b"):
            begun.set()
            end.wait()

    other = threading.Thread(target=hold)
    other.start()
    begun.wait()
    failures, busy = work(rows_of("a", "b", "c"), tmp_path, run, lambda: None)
    assert (seen, failures, [row.name for row in busy]) == (["a", "c"], [], ["b"])
    end.set()
    other.join()
    assert work(rows_of("a", "b", "c"), tmp_path, run, lambda: None) == ([], [])
    assert seen == ["a", "c", "b"]


def test_a_row_that_fails_does_not_stop_the_others(tmp_path, tree, teacher, capsys):
    def run(row, folder):
        if row.name == "b":
            raise InputError("student: the loss is not a number; try a lower --lr")
        finish(folder)

    failures, busy = work(rows_of("a", "b", "c"), tmp_path, run, lambda: None)
    assert [(f.row.name, f.reason[:8]) for f in failures] == [("b", "student:")]
    assert not busy
    assert (tmp_path / "runs" / "c" / "eval.json").exists()
    assert not (tmp_path / "runs" / "b").exists()
    file = sweep_file(tmp_path / "s.toml", tree, teacher, "[grid]\nlr = [0.01, 1e30]\n", epochs=1)
    line = ["sweep", str(file), "--out", str(tmp_path / "out")]
    fails(line, "sweep: 1 of 2 rows failed: lr=1e.30: .*not a number.*Use other options", capsys)
    assert len(read_table(tmp_path / "out" / TABLE)) == 1


WRONG = [
    ('[options]\ndata = "digits"\n[grid]\nepoch = [1]\n', r"\(epoch=1\): unknown option 'epoch'"),
    ('[options]\ndata = "digits"\n[grid]\nseeds = ["1"]\n', r"\(seed=1\): seed: expected an int"),
    ("[grid]\nseeds = [1]\n", r"\(seed=1\): data: has no value; add it to \[options\]"),
    ('command = "train"\n[options]\ndata = "digits"\n', r"\(row\): teacher: has no value"),
    ('[options]\ndata = "digits"\nout = "x"\n', "out: is for the command itself"),
    ('[options]\ndata = "digits"\n[grid]\nbits = [2, 9]\n', "=9.*weight_bits: .* 1 to 8, got 9"),
    ('[options]\ndata = "digits"\n', "teacher: needed by --rank-first"),
    ("[options\n", "expected TOML"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_what_is_wrong_is_said_before_the_first_row(tmp_path, capsys, text, message):
    file = tmp_path / "sweep.toml"
    file.write_text(text)
    line = ["sweep", str(file), "--out", str(tmp_path / "out")]
    line += ["--rank-first"] if "rank-first" in message else []
    fails(line, message, capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["run", "train"])
def test_rows_of_other_students(tree, teacher, tmp_path, command):
    """Of another model, from random weights, with one side in full precision."""
    grid = '[[list]]\nstudent_model = "tests.helpers.builders:normed"\nbits = 2\n'
    grid += '[[list]]\ninit = "random"\nweight_bits = 2\nact_bits = 32\n'
    options = {"strategy": "minimal", "epochs": 1}
    file = sweep_file(tmp_path / "sweep.toml", tree, teacher, grid, **options)
    file.write_text(f'command = "{command}"\n{file.read_text()}')
    assert main(["sweep", str(file), "--out", str(tmp_path / "out")]) == 0
    rows = read_table(tmp_path / "out" / TABLE)
    assert [row["student_model"] for row in rows] == ["tests.helpers.builders:normed", ""]
    assert all(row["student_accuracy"] for row in rows)
