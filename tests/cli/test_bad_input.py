"""Bad input at the command line: one paragraph that helps, exit code not 0, nothing lost."""

import shutil
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import daqakd
from daqakd.cli.main import main
from daqakd.models import CIFARResNet
from daqakd.report import report
from daqakd.train.options_file import keep_options

from ..helpers.refusals import fails
from ..helpers.small import BUILDERS, RUN, SmallNet, small_dataset


@pytest.fixture(scope="module")
def small_taught():
    """A trained teacher, and its data set."""
    dataset = small_dataset()
    torch.manual_seed(0)
    config = daqakd.TrainConfig(epochs=4, batch_size=16, lr=0.01, workers=0)
    return daqakd.teach(SmallNet(), dataset, config=config).model, dataset


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def spoilt(tree: Path, tmp_path: Path, spoil) -> str:
    copy = tmp_path / "spoilt"
    shutil.copytree(tree, copy)
    spoil(copy)
    return str(copy)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "no such folder or data set.*Known data sets"),
        (lambda r: (r / "train/class0/0.png").write_bytes(b"x"), "0.png: not a readable image"),
        (
            lambda r: [p.unlink() for p in (r / "train/class1").iterdir()],
            "class1: class folder wit",
        ),
    ],
    ids=["missing-folder", "unreadable-image", "empty-class"],
)
def test_data(tree, tmp_path, capsys, spoil, message):
    data, out = spoilt(tree, tmp_path, spoil), tmp_path / "out"
    fails(["run", data, "--out", str(out), *RUN], message, capsys)
    assert not out.exists()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (CIFARResNet(3, 7), r"does not fit resnet20 with 3 classes.*\(7, 64\), not \(3, 64\)"),
        (SmallNet(), "does not fit resnet20.*Pass the right --model"),
    ],
    ids=["classes", "architecture"],
)
def test_teacher_that_does_not_fit(tree, tmp_path, capsys, model, message):
    teacher, out = tmp_path / "t.safetensors", tmp_path / "out"
    save_file(model.state_dict(), teacher)
    fails(["rank", str(tree), "--teacher", str(teacher), "--out", str(out)], message, capsys)
    assert not out.exists()


def test_teacher_at_chance(tree, tmp_path, capsys):
    teacher, out = tmp_path / "t.safetensors", tmp_path / "out"
    torch.manual_seed(0)
    model = CIFARResNet(3, 3)
    torch.nn.init.zeros_(model.linear.weight)
    save_file(model.state_dict(), teacher)
    arguments = ["rank", str(tree), "--teacher", str(teacher), "--out", str(out)]
    fails(arguments, r"where chance is 33\.3%.*--mean, --std", capsys)
    assert not out.exists()


def test_too_few_images_for_the_folds(tree, finished, tmp_path, capsys):
    arguments = ["rank", str(tree), "--teacher", str(finished), "--images", "59"]
    fails([*arguments, "--out", str(tmp_path)], "59 asked for; 10 folds of 3 classes need", capsys)
    assert not list(tmp_path.glob("ranking*"))


def test_an_unknown_option_is_refused_with_a_suggestion(tree, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["run", str(tree), "--epoch", "3"])
    assert stop.value.code != 0
    assert "--epochs" in "".join(capsys.readouterr())


def test_another_configuration_keeps_the_run(tree, finished, capsys):
    before = contents(finished)
    arguments = ["run", str(tree), "--out", str(finished), *RUN, "--strategy", "minimal"]
    fails([*arguments, "-w", "3"], r"another configuration: weight_bits \(2 there, 3 here", capsys)
    assert contents(finished) == before


def test_the_input_size_of_a_student_is_its_own(finished, capsys):
    for option in (["--input-size", "24"], ["--size", "8"], ["--mean", *"111"], ["--std", *"111"]):
        fails(["eval", str(finished), *option], "(size|mean|std): is for --teacher", capsys)
    teacher = ["digits", "--teacher", str(finished), "--input-size", "-1"]
    fails(["eval", *teacher], "error: input_size: expected an integer from 1.*got -1", capsys)


def test_a_folder_that_is_no_run(tmp_path, capsys):
    fails(["eval", str(tmp_path)], "config.toml: cannot be read.*is this a run directory", capsys)
    fails(["report", str(tmp_path)], "config.toml: cannot be read", capsys)
    assert not contents(tmp_path)


def test_a_damaged_student(finished, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    (copy / "student.safetensors").write_bytes(b"damaged")
    fails(["eval", str(copy)], "student.safetensors: not a safetensors file", capsys)


@pytest.mark.parametrize(
    "wrong",
    [
        ("--size", "0"),
        ("--images", "59"),
        ("--model", "vgg8"),
        ("--seed", str(2**70)),
        ("--mean", "9", "9", "9"),
    ],
    ids=lambda v: v[0],
)
def test_after_a_wrong_option_the_right_command_works(tree, finished, tmp_path, wrong, capsys):
    line = ["rank", str(tree), "--teacher", str(finished), "--strategies", "minimal"]
    line += ["--out", str(tmp_path)]
    assert main([*line, *wrong]) == 2
    assert not (tmp_path / "config.toml").exists()
    assert main(line) == 0
    capsys.readouterr()
    fails([*line, *wrong], ".", capsys)


def test_a_wrong_second_command_leaves_the_notes_of_the_first(tree, finished, tmp_path, capsys):
    line = [str(tree), "--teacher", str(finished), "--out", str(tmp_path)]
    assert main(["rank", *line, "--strategies", "minimal"]) == 0
    before = contents(tmp_path)
    fails(["train", *line, "--strategies", "minimal", "--pac-limit", "-5"], "pac_limit", capsys)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("command", ["run", "teach", "rank", "search", "train"])
@pytest.mark.parametrize("place", ["a file", "below a file", "nowhere"])
def test_an_output_that_is_no_directory(tree, finished, tmp_path, command, place, capsys):
    (tmp_path / "file").touch()
    out, message = {
        "a file": (tmp_path / "file", "out: .*file is a file or lies below one; name a directory"),
        "below a file": (tmp_path / "file/x", "out: .*file/x is a file or lies below one"),
        "nowhere": (Path("/proc/x"), "/proc/x: No such file or directory; .*check the path"),
    }[place]
    line = [command, str(tree), "--out", str(out)]
    line += [] if command in ("run", "teach") else ["--teacher", str(finished)]
    fails(line, message, capsys)


def test_a_place_for_prepared_data_that_cannot_be_made(tree, capsys):
    line = ["data", "prepare", str(tree), "--out", "/proc/x"]
    fails(line, "out: /proc/x cannot be written .*No such file or directory", capsys)


def test_files_below_a_name_that_is_not_utf8(tree, finished, tmp_path, capsys):
    place = tmp_path / "bytes \udcff"
    shutil.copytree(finished, place)
    line = ["rank", str(tree), "--teacher", str(place), "--strategies", "minimal"]
    assert main([*line, "--out", str(place / "rank")]) == 0
    capsys.readouterr()
    for run in (finished, place):
        assert main(["eval", str(run)]) == 0
    told, again = capsys.readouterr().out.splitlines()
    assert told.rpartition(":")[2] == again.rpartition(":")[2]


@pytest.mark.parametrize("kind", ["dictionary", "auxiliary", "sharing", "normed", "compiled"])
def test_models_of_other_kinds_go_all_the_way(tree, tmp_path, kind, capsys):
    out, model = str(tmp_path / "out"), ["--model", f"{BUILDERS}:{kind}"]
    line = ["run", str(tree), "--out", out, *RUN]
    assert main([*line, "--strategy", "minimal", *model]) == 0
    assert main(["rank", str(tree), "--teacher", out, "--out", out, *model, *RUN[4:6]]) == 0
    for options in ([], ["--packed"]):
        assert main(["eval", out, *options, *model]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if "test images" in line]
    student, packed = (line.split(": ")[1] for line in shown[-2:])
    assert student == packed


def test_a_batch_too_small_for_a_batchnorm(tree, tmp_path, capsys):
    line = ["teach", str(tree), "--model", f"{BUILDERS}:normed", "--batch-size", "1"]
    fails([*line, "--out", str(tmp_path / "o")], "batch_size: 1 is too few for a BatchN", capsys)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("name", ["emoji 😀", "bytes \udcff", 'quote" \\ and\nline', "$\\x{$"])
def test_any_name_of_a_data_set(tree, finished, tmp_path, name):
    data = tmp_path / name
    shutil.copytree(tree, data)
    line = ["rank", str(data), "--teacher", str(finished), "--out", str(tmp_path / "out")]
    for _ in range(2):
        assert main([*line, "--strategies", "minimal"]) == 0
    assert main(["report", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize("name", ["$\\x{$", "a/b", "n" * 300, "50% $5 to $6", "emoji 😀"])
def test_any_name_of_a_strategy(small_taught, tmp_path, name, monkeypatch):
    daqakd.register_strategy(name, lambda image: image)
    names = ["minimal", name]
    ranking = daqakd.rank(*small_taught, strategies=names, run_dir=tmp_path, images=60)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the picture's font has no emoji
        ranking.save(tmp_path)
        again = daqakd.rank(*small_taught, strategies=names, run_dir=tmp_path, images=60)
        keep_options(tmp_path / "config.toml", "rank", {"strategies": names})
        assert report([tmp_path]).stat().st_size > 10_000
    assert [r.name for r in again.results] == [r.name for r in ranking.results]
    assert {r.name: r.measures for r in again.results}[name] == ranking.results[
        [r.name for r in ranking.results].index(name)
    ].measures
