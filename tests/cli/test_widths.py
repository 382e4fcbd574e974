"""``--bits FILE``: the widths of single layers, in the student, in its file and on resuming."""

import json

import pytest
import torch

import daqakd
from daqakd import InputError, TrainConfig
from daqakd.cli._widths import read_widths
from daqakd.cli.main import main
from daqakd.models import build
from daqakd.train.store import load_model, read_model_file, save_model

from ..helpers.refusals import fails
from ..helpers.small import SmallNet, small_dataset

LINES = """
"layer1.*" = [2, 3]
"layer2.0.conv1" = [4, "fp"]
"layer2.0.conv2" = ["fp", 5]
"layer2.1.conv1" = [32, 5]
"linear" = "fp"
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "bits.toml"
    path.write_text(LINES)
    return path


def widths(student) -> dict[str, tuple[int, int]]:
    return {row.name: (row.weight_bits, row.act_bits) for row in daqakd.summary(student).layers}


def test_layers_have_the_widths_of_their_lines(file):
    student = daqakd.quantize(build("resnet20", 3), weight_bits=8, act_bits=8, **read_widths(file))
    found = widths(student)
    assert found["layer1.0.conv1"] == found["layer1.2.conv2"] == (2, 3)
    assert found["layer2.0.conv1"] == (4, 32)
    assert found["layer2.0.conv2"] == found["layer2.1.conv1"] == (32, 5)
    assert found["layer3.0.conv1"] == (8, 8)
    assert isinstance(student.linear, torch.nn.Linear)
    assert not isinstance(student.linear, daqakd.quant.QuantLinear)


def test_the_students_file_has_them(tmp_path, file):
    recipe = {"weight_bits": 8, "act_bits": 8, "method": "lsq", **read_widths(file)}
    student = daqakd.quantize(build("resnet20", 3), **recipe)
    daqakd.calibrate(student, [torch.randn(4, 3, 32, 32)])
    path = tmp_path / "student.safetensors"
    save_model(path, student, "resnet20", small_dataset(), json.loads(json.dumps(recipe)))
    again = load_model(read_model_file(path), None, 3)
    assert widths(again) == widths(student)


def test_a_run_of_other_widths_does_not_continue(tmp_path):
    def train(**options):
        torch.manual_seed(0)
        teacher = SmallNet()
        student = daqakd.quantize(teacher, weight_bits=4, act_bits=4, **options)
        config = TrainConfig(epochs=1, batch_size=16, workers=0)
        daqakd.distill(
            *(student, teacher, small_dataset()),
            strategy="minimal",
            config=config,
            run_dir=tmp_path,
        )

    train()
    train()
    with pytest.raises(InputError, match=r"with other quantizers: conv2.weight_quantizer \(lsq, 4"):
        train(overrides={"conv2": {"weight_bits": 2}})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("fc = 4", r"'fc' is 4; give \[weight bits"),
        ("fc = [4]", r"'fc' is \[4\]"),
        ('fc = "full"', "'fc' is 'full'"),
        ("layer1.0 = [4, 4]", "put names with dots in quotes"),
        ("fc = [", "expected TOML"),
    ],
)
def test_a_line_that_says_nothing_is_named(file, line, said):
    file.write_text(line)
    with pytest.raises(InputError, match=said):
        read_widths(file)


def test_a_name_of_no_layer_is_named(file):
    file.write_text('"layr1.*" = [4, 4]')
    with pytest.raises(InputError, match="layr1"):
        daqakd.quantize(SmallNet(), weight_bits=4, act_bits=4, **read_widths(file))


MODEL = ("--model", "tests.helpers.small:small_net", "--strategy", "minimal", "--batch-size", "16")


def test_a_student_that_was_lowered_is_kept_at_its_own_widths(tree, tmp_path, capsys):
    line = ["run", str(tree), "--teacher-epochs", "1", *MODEL, "--first-last", "same"]
    line += ["--epochs", "3", "--quantize-from", "1", "--bits-schedule", "4"]
    fails([*line, "--out", str(tmp_path / "x"), "--dry-run"], "ends with 4 bits, and conv1", capsys)
    line += ["2", "--out", str(tmp_path)]
    assert main([*line, "--dry-run"]) == 0
    assert not [*tmp_path.iterdir()]
    assert main(line) == 0
    x, seen = torch.randn(4, 3, 16, 16), []
    for role in ("student", "student.packed", "student.best"):
        model = load_model(read_model_file(tmp_path, role), MODEL[1], 3).eval()
        seen.append(model(x))
    assert torch.equal(seen[0], seen[1])
    assert seen[2].isfinite().all()
    loaded = load_model(read_model_file(tmp_path, "student"), MODEL[1], 3)
    assert set(widths(loaded).values()) == {(2, 2)}
