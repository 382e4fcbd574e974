"""LSQ+'s activations: where they start, what they learn, and what others make of them."""

import copy

import pytest
import torch
from torch import nn

import daqakd
from daqakd import InputError
from daqakd.quant.lsqplus import LSQPlusActivation

from ..helpers import truth
from ..helpers.killed import equal


class Swish(nn.Module):
    """Two convolutions with what newer networks have for a ReLU."""

    def __init__(self, act=nn.SiLU) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.act = nn.Conv2d(8, 8, 3, padding=1), act()
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        x = self.act(self.bn1(self.conv1(x)))
        return self.fc(self.act(self.conv2(x)).mean((2, 3)))


IMAGES = torch.linspace(-2, 2, 8 * 3 * 8 * 8).mul(37).sin().view(8, 3, 8, 8)


def student(act=nn.SiLU, seed=0, **options):
    torch.manual_seed(seed)
    options = {"weight_bits": 3, "act_bits": 3, "method": "lsqplus"} | options
    made = daqakd.quantize(Swish(act), **options)
    return daqakd.calibrate(made, [IMAGES[:4], IMAGES[4:]]).eval()


def error_of(quantizer, x):
    with torch.no_grad():
        return (quantizer(x) - x).square().mean().item()


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("act", [nn.SiLU, nn.GELU, nn.ReLU, nn.Hardswish])
def test_starts_where_the_error_is_least(act, bits):
    """No worse than LSQ's start, and near the best grid that a search over both finds."""
    torch.manual_seed(1)
    x = act()(torch.randn(5_000))
    quantizer = LSQPlusActivation(bits)
    for phase in ("observe", "start", None):
        quantizer.enter(phase)
        if phase is not None:
            quantizer(x)
    quantizer.set_flags(True, False)
    found, levels = error_of(quantizer, x), 2**bits - 1
    best = min(
        (truth.lsqplus(x, (high - low) / levels, low, bits=bits) - x).square().mean().item()
        for low in torch.linspace(float(x.min()), 0.2, 24)
        for high in torch.linspace(0.2, float(x.max()), 60)
        if high > low
    )
    assert found <= 1.15 * best + 1e-9
    assert x.min() <= quantizer.offset <= 0


def test_one_step_follows_the_formula():
    made = student().double()
    quantizer = made.conv2.act_quantizer
    x = torch.randn(4, 8, 8, 8, dtype=torch.float64, requires_grad=True)
    g = torch.randn_like(x)
    quantizer(x).backward(g)
    scale = 1 / (8 * 8 * 8 * 7) ** 0.5
    inputs = x.detach(), quantizer.step.detach(), quantizer.offset.detach()
    y, dx, dstep, doffset = truth.with_gradients(truth.lsqplus, inputs, g, bits=3)
    torch.testing.assert_close(quantizer(x), y)
    torch.testing.assert_close(x.grad, dx)
    torch.testing.assert_close(quantizer.step.grad, dstep * scale)
    torch.testing.assert_close(quantizer.offset.grad, doffset * scale)


def test_step_and_offset_learn():
    made = student().train()
    groups = daqakd.param_groups(made, 0.05, 1e-4)
    own = {id(p) for p in groups[1]["params"]}
    quantizer = made.conv2.act_quantizer
    assert {id(quantizer.step), id(quantizer.offset)} <= own
    before = quantizer.step.item(), quantizer.offset.item()
    optimizer = torch.optim.SGD(groups, lr=0.05)
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(made(IMAGES), torch.arange(8) % 3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert quantizer.step.item() != before[0]
    assert quantizer.offset.item() != before[1]


def test_files_copies_and_rows(tmp_path):
    made = student()
    for packed in (False, True):
        daqakd.save(made, tmp_path / "a", packed=packed)
        assert torch.equal(daqakd.load(tmp_path / "a", Swish())(IMAGES), made(IMAGES))
    twin = copy.deepcopy(made)
    assert equal(twin.state_dict(), made.state_dict())
    assert torch.equal(twin(IMAGES), made(IMAGES))
    row = next(row for row in daqakd.summary(made).layers if row.name == "conv2")
    assert (row.method, row.act_bits) == ("lsq/lsqplus", 3)
    assert row.act_step == pytest.approx(made.conv2.act_quantizer.step.item())
    daqakd.save(made, tmp_path / "a")
    with pytest.raises(InputError, match="is lsqplus, 8 bits, per tensor there and lsq, 8 bits"):
        daqakd.load(tmp_path / "a", student(method="lsq"))


def test_a_fused_student_leaves_it_alone():
    made = student(nn.ReLU)
    fused = daqakd.fuse(made)
    assert torch.equal(fused(IMAGES), made(IMAGES))
    assert "its quantizer, lsqplus, has no fused op" in str(daqakd.summary(fused))


def test_ranges_of_odd_data():
    for x in (torch.zeros(9), torch.full((9,), 3.0), torch.full((9,), -3.0), torch.rand(99) + 5):
        quantizer = LSQPlusActivation(4)
        for phase in ("observe", "start"):
            quantizer.enter(phase)
            y = quantizer(x)
        assert bool(y.isfinite().all())
        assert (y - x).abs().max() <= quantizer.step.item()


def test_by_the_command_line(tmp_path):
    from daqakd.cli.main import main

    from ..helpers.small import write_images

    tree = write_images(tmp_path / "tree", train=90, test=30)
    own = ("--model", "tests.helpers.small:small_net", "--batch-size", "16")
    assert main(["teach", str(tree), "--epochs", "2", *own, "--out", str(tmp_path / "t")]) == 0
    line = ["train", str(tree), "--teacher", str(tmp_path / "t"), *own, "--strategy", "minimal"]
    line += ["--epochs", "1", "-w", "3", "-a", "3", "-m", "lsqplus"]
    assert main([*line, "--out", str(tmp_path / "s")]) == 0
    assert main(["eval", str(tmp_path / "s"), "--model", own[1]]) == 0
    assert main(["eval", str(tmp_path / "s"), "--model", own[1], "--packed"]) == 0


def test_sentences():
    with pytest.raises(InputError, match="'mqbench' has no lsqplus"):
        daqakd.quantize(Swish(), weight_bits=3, act_bits=3, act_method="lsqplus", flavour="mqbench")
    with pytest.raises(InputError, match="forward pass before calibration"):
        daqakd.quantize(Swish(), weight_bits=3, act_bits=3, method="lsqplus")(IMAGES)
