"""Bad input at the command line: one paragraph that helps, exit code not 0, nothing lost."""

import errno
import os
import re
import shutil
import subprocess
import sys
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

from ..helpers.small import SmallNet, small_dataset, write_images

ROOT = Path(__file__).parents[2]

BUILDERS = "tests.helpers.builders"
RUN: tuple[str, ...] = ("--teacher-epochs", "6", "--epochs", "1", "--strategies", "minimal")
RUN += ("--seed", "1", "--batch-size", "16")


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("tree"), train=90, test=30)


@pytest.fixture(scope="module")
def finished(tree, tmp_path_factory) -> Path:
    """A run whose files must survive whatever is tried on its directory."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    assert main(["run", str(tree), "--out", str(out), *RUN, "--strategy", "minimal"]) == 0
    return out


@pytest.fixture(scope="module")
def small_taught():
    """A trained teacher, and its data set."""
    dataset = small_dataset()
    torch.manual_seed(0)
    config = daqakd.TrainConfig(epochs=4, batch_size=16, lr=0.01, workers=0)
    return daqakd.teach(SmallNet(), dataset, config=config).model, dataset


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def fails(arguments: list[str], message: str, capsys) -> None:
    """Require exit code 2 and one paragraph that matches ``message``."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("daqakd: error: ")
    assert error.count("\n") == 1
    assert re.search(message, error), error


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-w", "9"), "weight_bits.*integer from 1 to 8, got 9"),
        (("-a", "0"), "act_bits.*integer from 1 to 8, got 0"),
        (("-w", "1"), "no positive code for LSQ.*use 2 bits or more"),
        (("--strategy", "cutmx"), "unknown strategy 'cutmx'.*Did you mean 'cutmix'"),
        (("--strategies", "cutmx"), "unknown strategy 'cutmx'.*Did you mean 'cutmix'"),
        (("--model", "resnet22"), "unknown model 'resnet22'.*Did you mean"),
        (("--method", "pakt"), "unknown method 'pakt'.*Did you mean 'pact'"),
        (("--lr", "0"), "lr: expected more than 0"),
        (("--lr", "inf"), "lr: expected a finite number, got inf"),
        (("--lr", "nan"), "lr: expected a finite number, got nan"),
        (("--lr", "-0.1"), "lr: expected more than 0, got -0.1"),
        (("--quantizer-lr", "-1"), "quantizer_lr: expected at least 0, got -1"),
        (("--teacher-lr", "0"), "lr: expected more than 0, got 0"),
        (("--weight-decay", "-1"), "weight_decay: expected at least 0, got -1"),
        (("--epochs", "0"), "epochs: expected at least 1, got 0"),
        (("--teacher-epochs", "-1"), "epochs: expected at least 1, got -1"),
        (("--batch-size", "0"), "batch_size: expected at least 1, got 0"),
        (("--calibration-batches", "0"), "calibration_batches: expected at least 1, got 0"),
        (("--warmup-steps", "-1"), "warmup_steps: expected at least 0, got -1"),
        (("--temperature", "0"), "temperature: expected more than 0, got 0"),
        (("--temperature", "inf"), "temperature: expected a finite number, got inf"),
        (("--ce-weight", "-1"), "ce_weight: expected at least 0, got -1"),
        (("--kd-weight", "nan"), "kd_weight: expected a finite number, got nan"),
        (("--label-smoothing", "2"), "label_smoothing: expected at most 1, got 2"),
        (("--checkpoint-seconds", "nan"), "checkpoint_seconds: expected a finite number"),
        (("--workers", "-1"), "workers: expected at least 0, got -1"),
        (("--seed", str(2**64)), "seed: expected an integer of 64 bits, got 18446744073709551616"),
        (("--seed", str(-(2**63) - 1)), "seed: expected an integer of 64 bits, got -9"),
        (("--size", "0"), "size: expected at least 1, got 0"),
        (("--size", "-3"), "size: expected at least 1, got -3"),
        (("--size", "9" * 20), "size: expected at most 32768 pixels, got 9"),
        (("--holdout", "1"), "holdout: expected a share 0 <= h < 1, got 1"),
        (("--holdout", "nan"), "holdout: expected a share 0 <= h < 1, got nan"),
        (("--images", "0"), "images: expected at least 1, got 0"),
        (("--images", "59"), "59 asked for; 10 folds of 3 classes need"),
        (("--images", "9" * 20), "9 asked for; 10 folds .* and the data set has 90"),
        (("--passes", "0"), "passes: expected at least 1, got 0"),
        (("--budget", "-1"), "budget: expected more than 0 seconds, got -1"),
        (("--pac-limit", "nan"), "pac_limit: expected a finite number"),
        (("--cmi-weight", "inf"), "cmi_weight: expected a finite number, got inf"),
        (("--mean", "nan", "0", "0"), r"mean: expected three numbers.*got \(nan"),
        (("--std", "0", "1", "1"), r"std: expected three positive numbers.*got \(0"),
        (("--teacher-strategy", "x"), "unknown strategy 'x'"),
        (("--strategies",), "strategies: need at least one"),
        (("--model", ":"), "model ':': cannot be imported.*expected package.module:function"),
        (("--model", ":x"), "model ':x': cannot be imported"),
        (("--model", "os:"), "model 'os:': cannot be imported"),
        (("--model", "no.such:thing"), "cannot be imported .ModuleNotFoundError"),
        (("--model", "os:path"), "path is not callable"),
        (("--model", f"{BUILDERS}:fails"), "fails.num_classes=3. failed with RuntimeError: no wei"),
        (("--model", f"{BUILDERS}:other_argument"), "failed with TypeError: .*num_classes"),
        (
            ("--model", f"{BUILDERS}:exits"),
            "exits.num_classes=3. failed with SystemExit: no weights",
        ),
        (("--model", "tests.helpers.exiting:x"), "cannot be imported .SystemExit: a script"),
        (("--model", "tests.helpers"), "no name of ours; a function of yours is tests:helpers"),
        (("--model", f"{BUILDERS}:without_values"), "weights are on the meta device"),
        (("--model", f"{BUILDERS}:frozen"), "no parameter requires a gradient.*requires_grad_"),
        (("--model", f"{BUILDERS}:number"), "returned a int, expected a torch.nn.Module"),
        (("--model", f"{BUILDERS}:lazy"), "1.weight is lazy.*run the model once on a batch"),
        (("--model", f"{BUILDERS}:large_images"), r"forward pass fails on images of \(3, 16, 16\)"),
        (("--model", f"{BUILDERS}:more_classes"), r"returned \(2, 5\) .*expected logits \(2, 3\)"),
        (("--model", f"{BUILDERS}:pixels"), r"returned \(2, 3, 16, 16\) .*expected logits \(2, 3"),
        (("--model", f"{BUILDERS}:nothing"), "returned a dict without a tensor; expected logits"),
        (("--input-size", "24"), "input_size: 24 asked for.*add --crop resized, or leave --input-"),
        (
            ("--crop", "pad", "--jitter", *"1111"),
            "jitter: .*only resized crops have it; add --crop",
        ),
        (("--crop-scale", "0.1", "1"), r"crop_scale: \(0.1, 1.0\) asked for.*add --crop resized"),
        (
            ("--crop", "resized", "--input-size", "0"),
            "error: input_size: expected at least 1 pixel",
        ),
        (("--crop", "resized", "--crop-scale", "1", "2"), "error: crop_scale: expected shares"),
        (
            ("--crop", "resized", "--jitter", *"1111"),
            "error: jitter: expected brightness.*0.5, got",
        ),
    ],
    ids=lambda v: "".join(v) if isinstance(v, tuple) else "",
)
def test_options_leave_no_trace(tree, tmp_path, capsys, options, message):
    out = tmp_path / "out"
    fails(["run", str(tree), "--out", str(out), *RUN, *options], message, capsys)
    assert not out.exists()


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
    fails(["eval", str(finished), "--input-size", "24"], "input_size: is for --teacher", capsys)
    teacher = ["digits", "--teacher", str(finished), "--input-size", "-1"]
    fails(["eval", *teacher], "error: input_size: expected at least 1 pixel.*got -1", capsys)


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
    fails(line, "/proc/.*No such file or directory; .*check the path", capsys)


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


@pytest.mark.parametrize("name", ["ranking.json", "ranking.parts"])
@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "No space left on device; free some space and run the same command again"),
        (errno.EACCES, "Permission denied; change its permissions, or use another --out"),
        (errno.EROFS, "Read-only file system; use another --out"),
        (errno.EIO, "Input/output error; check the path, then run the same command again"),
    ],
    ids=["full", "forbidden", "read-only", "broken"],
)
def test_what_the_system_refuses(
    tree, finished, tmp_path, monkeypatch, name, code, message, capsys
):
    real = os.replace

    def replace(old, new):
        if name in str(new):
            raise OSError(code, os.strerror(code), str(old), None, str(new))
        real(old, new)

    line = ["rank", str(tree), "--teacher", str(finished), "--out", str(tmp_path)]
    line += ["--strategies", "minimal"]
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        fails(line, f"{name}.*: {message}", capsys)
    assert not list(tmp_path.rglob("*.tmp"))
    assert main(line) == 0


@pytest.mark.parametrize("command", [["--help"], ["doctor"], ["rank", "--help"]])
def test_an_output_on_a_full_disk(command):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "daqakd", *command],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert re.fullmatch(
        "daqakd: error: (the output: )?No space left on device; free .*\n", done.stderr
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_output(closed):
    command = f"{sys.executable} -m daqakd doctor {closed}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0
    assert not done.stderr


@pytest.mark.parametrize("columns", ["0", "", "1", "20", "x"])
def test_any_width_shows_everything(columns):
    done = subprocess.run(
        [sys.executable, "-m", "daqakd", "doctor"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": columns},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "torchvision" in done.stdout
    assert "lsq" in done.stdout


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
