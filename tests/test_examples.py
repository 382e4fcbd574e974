"""The examples run as they stand."""

import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

import daqakd
from daqakd.models import build

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_every_example_is_run_here():
    assert sorted(p.name for p in EXAMPLES.glob("*.py")) == ["own_loop_to_onnx.py"]


def test_own_loop_to_onnx(tmp_path):
    torch.manual_seed(0)
    config = daqakd.TrainConfig(epochs=2, batch_size=64)
    data = daqakd.data.load("digits")
    taught = daqakd.teach(build("resnet20", 10), data, strategy="minimal", config=config)
    save_file(taught.model.state_dict(), tmp_path / "teacher.safetensors")
    command = [sys.executable, str(EXAMPLES / "own_loop_to_onnx.py")]
    files = [str(tmp_path / name) for name in ("teacher.safetensors", "student.onnx")]
    done = subprocess.run([*command, *files], check=True, capture_output=True, text=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == ["PyTorch:", "onnxruntime:"]
    right = [float(line[1].rstrip("%")) for line in lines]
    assert abs(right[0] - right[1]) < 0.5  # an activation at a tie may turn an image
    assert right[0] > 50
