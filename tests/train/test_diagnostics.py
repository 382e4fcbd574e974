"""What a run tells about quantization: oscillation, clipping, steps, what has no gradient."""

import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import nn

import daqakd
from daqakd import InputError, TrainConfig
from daqakd.train import diagnostics
from daqakd.train.clipping import clipped_shares
from daqakd.train.diagnostics import Diagnostics
from daqakd.train.epoch_log import JSONLines, read_records
from daqakd.train.oscillation import Oscillations

from ..helpers.small import SmallNet, small_dataset

CONFIG = TrainConfig(epochs=2, batch_size=16, lr=0.01, workers=0)
COLUMNS = {"oscillating", "clipped", "smallest_step", "no_gradient"}


def run(config=CONFIG, run_dir=None, change=None, **options):
    torch.manual_seed(0)
    teacher = SmallNet()
    student = daqakd.quantize(teacher, weight_bits=3, act_bits=3)
    if change is not None:
        change(student)
    given = {"strategy": "cutmix", "config": config, "run_dir": run_dir} | options
    return daqakd.distill(student, teacher, small_dataset(), **given)


def changed_back(history: list[int], window: int | None) -> list[bool]:
    """Go through one code's values as the definition says."""
    found, last = [], None  # place and direction of the last change
    for t in range(1, len(history)):
        d = history[t] - history[t - 1]
        near = last is not None and (window is None or t - last[0] <= window)
        found.append(d != 0 and near and last is not None and d * last[1] < 0)
        last = (t, d) if d else last
    return found


@pytest.mark.parametrize("window", [None, 1, 3])
def test_a_code_oscillates_where_it_changes_back_soon(window):
    generator = torch.Generator().manual_seed(1)
    jumps = torch.randint(0, 12, (40, 50), generator=generator)
    codes = torch.where(jumps < 3, 100 + 60 * jumps, 0).cumsum(0) % 256
    codes = codes.to(torch.uint8)
    tracker = Oscillations(codes[0], window)
    found = torch.stack([tracker.observe(now) for now in codes[1:]])
    wanted = [changed_back(column.tolist(), window) for column in codes.T]
    assert torch.equal(found.T, torch.tensor(wanted))
    assert 0 < found.double().mean() < 1


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("method", ["lsq", "pact", "dorefa", "ewgs"])
def test_clipped_are_activations_beyond_the_levels(method, signed):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(64, 6, generator=generator) * 2
    x = x if signed else x.relu()
    options = {"weight_bits": 4, "act_bits": 3, "method": method, "first_last": "same"}
    student = daqakd.quantize(nn.Sequential(nn.Linear(6, 4)), **options)
    daqakd.calibrate(student, [x])
    q = student[0].act_quantizer
    own = {name: parameter.item() for name, parameter in q.named_parameters()}
    if method == "lsq":
        low, high = -4 * own["step"], (3 if signed else 7) * own["step"]
    elif method == "ewgs":
        low, high = own["lower"], own["upper"]
    else:
        high = own.get("alpha", 1.0)
        low = -high
    wanted = ((x > high) | (x < low)).double().mean().item()
    student.train()
    found = clipped_shares(student, x)
    assert found == {"0.act_quantizer": wanted}
    assert student.training
    assert not q._forward_pre_hooks


def test_it_changes_no_bit_of_the_run():
    watched, plain = run(), run(replace(CONFIG, diagnose="off"))
    for name, value in plain.model.state_dict().items():
        assert torch.equal(watched.model.state_dict()[name], value)
    for row, other in zip(watched.history, plain.history, strict=True):
        assert row.keys() - other.keys() == COLUMNS
        assert {k: v for k, v in row.items() if k not in COLUMNS} == other


def test_the_columns_are_what_the_layers_say(tmp_path):
    result = run(run_dir=tmp_path)
    records = read_records(tmp_path / "metrics.jsonl")
    assert [r["epoch"] for r in records] == [1, 2]
    for row, record in zip(result.history, records, strict=True):
        assert {k: v for k, v in record.items() if k not in ("quantizers", "names")} == row
        layers = record["quantizers"]
        assert row["smallest_step"] == min(q["step"] for q in layers.values())
        clipped = [q["clipped"] for q in layers.values() if "clipped" in q]
        assert row["clipped"] == sum(clipped) / len(clipped)
        assert len(clipped) == 3
        counts = {n: p.numel() for n, p in result.model.named_parameters()}
        shares = {n: q["oscillating"] for n, q in layers.items() if "oscillating" in q}
        part = {n: counts[n.replace("weight_quantizer", "weight")] for n in shares}
        total = sum(share * part[n] for n, share in shares.items()) / sum(part.values())
        assert row["oscillating"] == pytest.approx(total)
    last = result.model.conv2.weight_quantizer
    assert layers["conv2.weight_quantizer"]["parameters"] == {"step": last.step.item()}


def test_oscillation_is_seen(monkeypatch):
    monkeypatch.setattr(diagnostics, "EVERY", 1)
    rows = run(replace(CONFIG, lr=0.1, schedule="constant")).history
    assert all(0 < row["oscillating"] < 1 for row in rows)


def test_what_has_no_gradient_is_said_once_by_name(tmp_path, capsys):
    def change(student):
        student.unused = nn.Parameter(torch.ones(3))

    one, two = run(replace(CONFIG, epochs=1), tmp_path, change, quiet=False), capsys.readouterr()
    assert two.out.count("student: unused: its gradient was zero in all of epoch 1") == 1
    assert one.history[0]["no_gradient"] == 1
    again = run(CONFIG, tmp_path, change, quiet=False)
    assert again.history[1]["no_gradient"] == 1
    assert "unused" not in capsys.readouterr().out
    assert read_records(tmp_path / "metrics.jsonl")[1]["names"]["no_gradient"] == ["unused"]


def test_a_quantizer_at_its_floor_is_said_once_by_name(capsys):
    def change(student):
        student.conv2.weight_quantizer.step.data.fill_(-1.0)

    rows = run(replace(CONFIG, quantizer_lr=0.0), change=change, quiet=False).history
    out = capsys.readouterr().out
    assert out.count("student: conv2.weight_quantizer: at the floor of 2^-30 since epoch 1") == 1
    assert out.count("at the floor") == 1
    assert rows[0]["smallest_step"] == -1.0


def test_many_names_are_one_sentence():
    said: list[str] = []
    part = Diagnostics(SmallNet(), lambda: torch.zeros(1, 3, 16, 16), said.append)
    part.before_epoch(0)
    row = part.end_epoch(0, None)
    assert row == {"oscillating": None, "clipped": None, "smallest_step": None, "no_gradient": 7}
    (text,) = said
    assert text.startswith(
        "conv1.weight, bn1.weight, bn1.bias, conv2.weight, conv2.bias and 2 more"
    )


@pytest.mark.parametrize(
    "damage", [lambda t: t[:-5], lambda t: t.replace("0.", "1.", 1), str.upper]
)
def test_a_damaged_record_is_named(tmp_path, damage):
    path = tmp_path / "metrics.jsonl"
    log = JSONLines(path, lambda: {"more": [1]})
    for epoch in (1, 2, 3):
        log.after_epoch({"epoch": epoch, "loss": 0.5})
    JSONLines(path, dict).after_epoch({"epoch": 2, "loss": 0.25})  # as a continued run repeats it
    first = {"epoch": 1, "loss": 0.5, "more": [1]}
    assert read_records(path) == [first, {"epoch": 2, "loss": 0.25}]
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError, match=r"metrics\.jsonl: .*damaged"):
        read_records(path)


def test_tensorboard_gets_the_scalars(tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder, purge_step):
            written.append((folder, purge_step))

        def add_scalar(self, *scalar):
            written.append(scalar)

        def flush(self): ...

        def close(self):
            written.append("closed")

    fake = ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    config = replace(CONFIG, tensorboard=True)
    row = run(config, tmp_path).history[1]
    assert written[0] == (str(tmp_path / "tb" / "student"), 1)
    assert written[-1] == "closed"
    assert {s[0]: s[1] for s in written[1:-1] if s[2] == 2} == {
        k: v for k, v in row.items() if k != "epoch" and v is not None
    }
    with pytest.raises(InputError, match=r"^tensorboard: .*pass run_dir"):
        run(config)


def test_without_tensorboard_the_option_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"^tensorboard: is not installed; pip install"):
        run(replace(CONFIG, tensorboard=True), tmp_path)
