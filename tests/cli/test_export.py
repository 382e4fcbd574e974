"""``export`` and ``eval --onnx``: a run's student for other runtimes, as right as in the run."""

import json
import shutil

import pytest
import torch

from daqakd.cli.main import main


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def test_a_runs_student_is_as_right_by_onnxruntime(run, capsys):
    assert main(["export", str(run)]) == 0
    assert "onnx: " in capsys.readouterr().out
    assert main(["eval", str(run)]) == main(["eval", str(run), "--onnx"]) == 0
    record = json.loads((run / "eval.json").read_text())
    assert record["onnx_accuracy"] == record["student_accuracy"]
    assert record["onnx_bytes"] == (run / "student.onnx").stat().st_size < record["student_bytes"]
    assert "onnx: " in capsys.readouterr().out


def test_other_formats(run, tmp_path, capsys):
    before = (run / "student.packed.safetensors").read_bytes()
    (run / "student.packed.safetensors").unlink()
    assert main(["export", str(run), "--format", "packed"]) == 0
    assert (run / "student.packed.safetensors").read_bytes() == before
    other = tmp_path / "x" / "s.pt2"
    assert main(["export", str(run), "--format", "program", "--out", str(other)]) == 0
    program = torch.export.load(other).module()
    assert program(torch.zeros(5, 3, 16, 16)).shape == (5, 3)
    assert str(other) in capsys.readouterr().out


def test_sentences(run, finished, tmp_path, capsys):
    def said(*line):
        assert main([*map(str, line)]) == 2
        return capsys.readouterr().err

    assert "is no file; write one by daqakd.export_onnx" in said("eval", run, "--onnx")
    assert "drop one of the two" in said("eval", run, "--onnx", "--packed")
    assert "not for --teacher" in said("eval", "digits", "--teacher", run, "--onnx")
    assert "opset: expected an integer from 18" in said("export", run, "--opset", "9")
    assert "config.toml" in said("export", tmp_path / "nothing")
    (run / "student.safetensors").unlink()
    assert "student.safetensors" in said("export", run)
