"""Which quantizers a student has: one side alone, single bits, a method for each side."""

import json
import re

import pytest

import daqakd
from daqakd.cli.main import main
from daqakd.train.store import load_model, read_model_file

from ..helpers.refusals import fails

MODEL = ("--model", "tests.helpers.small:small_net")
STUDENTS = {  # options: widths and quantizers of the layer in the middle
    "-w 2 -a 32": (2, 32, ["LSQWeight"]),
    "-w 32 -a 2": (32, 2, ["LSQActivation"]),
    "-w 1 -a 1 --method dorefa": (1, 1, ["DoReFaWeight", "DoReFaActivation"]),
    "-w 1 -a 1 --method pact": (1, 1, ["DoReFaWeight", "PACTActivation"]),
    "-w 1 -a 1 --method ewgs --delta 0.1": (1, 1, ["EWGSWeight", "EWGSActivation"]),
    "-w 1 -a 1 --weight-method dorefa": (1, 1, ["DoReFaWeight", "LSQActivation"]),
    "-w 3 -a 4 --act-method ewgs": (3, 4, ["LSQWeight", "EWGSActivation"]),
}


@pytest.fixture(scope="module")
def teacher(tree, tmp_path_factory):
    out = tmp_path_factory.mktemp("teacher")
    line = ["teach", str(tree), "--out", str(out), "--epochs", "4", "--batch-size", "16"]
    assert main([*line, *MODEL]) == 0
    return out


@pytest.fixture
def line(tree, teacher):
    """The command that trains a student for an epoch."""
    short = ["--strategy", "minimal", "--epochs", "1", "--batch-size", "16"]
    return ["train", str(tree), "--teacher", str(teacher), *MODEL, *short]


@pytest.mark.parametrize("options", STUDENTS)
def test_a_student_of_every_kind_is_trained_kept_and_packed(line, tmp_path, capsys, options):
    *widths, quantizers = STUDENTS[options]
    whole = [*line, *options.split(), "--out", str(tmp_path)]
    assert main([*whole, "--dry-run"]) == 0
    assert f"W{widths[0]}A{widths[1]} " in capsys.readouterr().out
    assert main(whole) == 0
    student = load_model(read_model_file(tmp_path, "student"), MODEL[1], 3)
    row = next(one for one in daqakd.summary(student).layers if one.name == "conv2")
    assert [row.weight_bits, row.act_bits] == widths
    parts = [type(module).__name__ for module in student.conv2.children()]
    assert parts == quantizers
    assert main(["eval", str(tmp_path), *MODEL]) == 0
    assert main(["eval", str(tmp_path), *MODEL, "--packed"]) == 0
    right = re.findall(r"student: ([\d.]+%)|packed: ([\d.]+%)", capsys.readouterr().out)
    assert right[0][0] == right[1][1]
    assert main(whole) == 0  # the same options continue


def test_a_student_of_one_method_says_no_more_than_before(line, tmp_path):
    assert main([*line, "--out", str(tmp_path)]) == 0
    recipe = json.loads(read_model_file(tmp_path, "student").facts["quantize"])
    names = ["weight_bits", "act_bits", "method", "flavour", "per_channel", "first_last"]
    assert [*recipe] == [*names, "delta", "save"]


def test_widths_of_a_sweep_and_a_file(line, tmp_path, capsys):
    path = tmp_path / "options.toml"
    path.write_text('weight_bits = 32\nact_method = "pact"\n')
    out = ["--out", str(tmp_path / "x"), "--dry-run"]
    assert main([*line, *out, "-a", "4", "--config", str(path)]) == 0
    assert "W32A4 lsq, pact" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("-w 32 -a 32", "weight_bits: full precision, and so are the activations: .* in --bits"),
        ("-w 1 -a 1", "weight_bits: 1 bit has no positive code for LSQ's signed weights; use 2"),
        ("-w 1 -a 1 --weight-method lsq --method ewgs", "weight_bits: 1 bit has no positive"),
        ("-w 1 -a 1 --method pact --flavour mqbench", "weight_bits: 1 bit has no positive code on"),
        ("-a 31", "act_bits: expected an integer from 1 to 8, got 31"),
        ("--weight-method pact", "unknown weight_method 'pact'"),
        ("--act-method pakt", "unknown act_method 'pakt'. Did you mean 'pact'"),
        ("--method pact --act-method lsq --delta hessian", "delta: 'hessian' is for EWGS, and"),
    ],
)
def test_what_cannot_be_meant(line, tmp_path, capsys, options, message):
    fails([*line, "--out", str(tmp_path / "x"), *options.split()], message, capsys)
    assert not [*tmp_path.iterdir()]
