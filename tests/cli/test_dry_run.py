"""``--dry-run``: what there is to do, how long it may take, and nothing left behind."""

import re

import pytest

from daqakd.cli._dry_run import duration
from daqakd.cli.main import main
from daqakd.ranking import SearchConfig
from daqakd.ranking.preview import search_images

from ..helpers.refusals import fails
from ..helpers.small import small_dataset

MODEL = ("--model", "tests.helpers.small:small_net")
STUDENT = r"student: \S+ W2A2 lsq, 843 parameters, 3 epochs of 5 steps of 16 images, [\d.]+ ms"
TEACHER = r"teacher: \S+, 843 parameters, 4 epochs of 5 steps of 16 images, [\d.]+ ms a step"
RANKING = r"ranking: 2 strategies, 90 images each: about [\d.]+ seconds"
RANK = ("--strategies", "minimal", "cutmix")
TRAIN = ("--epochs", "3", "--batch-size", "16")
CASES = {
    "teach": (("--epochs", "4", "--batch-size", "16"), (TEACHER,)),
    "rank": (RANK, (RANKING,)),
    "search": (("--compositions", "6"), (r"rung by rung: 6 on 60, 3 on 90: about",)),
    "train": ((*RANK, *TRAIN), (RANKING, STUDENT)),
    "run": ((*RANK, *TRAIN, "--teacher-epochs", "4"), (TEACHER, RANKING, STUDENT)),
}


@pytest.fixture(scope="module")
def teacher(tree, tmp_path_factory):
    out = tmp_path_factory.mktemp("teacher")
    line = ["teach", str(tree), "--out", str(out), "--epochs", "4", "--batch-size", "16"]
    assert main([*line, *MODEL]) == 0
    return out


@pytest.mark.parametrize("command", CASES)
def test_it_says_what_there_is_to_do(command, tree, teacher, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options, expected = CASES[command]
    line = [command, str(tree), *MODEL, *options, "--out", "a/b"]
    if command not in ("teach", "run"):
        line += ["--teacher", str(teacher)]
    assert main([*line, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"images: 81 to fit, \d+ held out, 30 to test; 3 classes, 16 x 16", said)
    for pattern in (*expected, r"memory: [\d,]+ MiB", r"together: about .* nothing is kept in a/b"):
        assert re.search(pattern, said), (pattern, said)
    assert not [*tmp_path.iterdir()]


def test_a_loss_that_wants_other_classes_is_measured_in_a_sorted_folder(
    tree, teacher, tmp_path, capsys
):
    """Folders are sorted by class, and the images of a batch are not."""
    line = ["train", str(tree), "--teacher", str(teacher), *MODEL, *TRAIN, "--strategy", "minimal"]
    line += ["--kd", "crd", "--taps", "fc:input", "--dry-run", "--out", str(tmp_path / "x")]
    assert main(line) == 0
    assert re.search(STUDENT, capsys.readouterr().out)


def test_it_refuses_what_the_command_would(tree, finished, tmp_path, capsys):
    line = ["run", str(tree), "--dry-run", "--out"]
    fails([*line, str(tmp_path / "x"), "--strategy", "nope"], "unknown strategy 'nope'", capsys)
    fails([*line, str(finished)], "holds a run run of another configuration", capsys)
    assert not [*tmp_path.iterdir()]


def test_the_rungs_are_those_of_a_search():
    config = SearchConfig(compositions=16)
    found = search_images(small_dataset(960), config)
    assert [live for _, live in found] == [16, 8, 4]
    assert found[-1][0] == 960


def test_durations():
    said = [duration(s) for s in (0.04, 89, 90, 5400, 200_000)]
    assert said == ["0.0 seconds", "89.0 seconds", "1.5 minutes", "1.5 hours", "2.3 days"]
