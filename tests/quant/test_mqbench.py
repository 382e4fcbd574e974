"""MQBench's flavour: its published formulas, gradients, levels, and what trains with what."""

import math

import pytest
import torch
from torch import nn

import daqakd
from daqakd import InputError, TrainConfig
from daqakd.quant.mqbench import MQBenchDoReFaWeight, MQBenchLSQWeight, MQBenchPACTActivation
from daqakd.train.store import load_model, read_model_file, save_model, save_packed

from ..helpers.killed import equal, killed_at
from ..helpers.small import SmallNet, small_dataset

METHODS = ("lsq", "pact", "dorefa")
CONFIG = TrainConfig(epochs=2, batch_size=16, lr=0.01, optimizer="sgd", workers=0)
W = torch.tensor([-0.5, -0.2, 0.0, 0.1, 0.3])
X = torch.tensor([0.0, 0.2, 0.5, 1.0, 2.0, -0.4])
G = torch.tensor([1.0, -1.0, 2.0, 1.0, -2.0, 1.0])


def quantized(method="lsq", **options):
    torch.manual_seed(0)
    options = {"weight_bits": 3, "act_bits": 3} | options
    return daqakd.quantize(SmallNet(), method=method, flavour="mqbench", **options)


def trained(method="lsq", config=CONFIG, run_dir=None):
    torch.manual_seed(0)
    given = {"strategy": "cutmix", "config": config, "run_dir": run_dir}
    return daqakd.distill(quantized(method), SmallNet(), small_dataset(), **given)


def calibrated(method, bits, x, **options):
    """Return an activation quantizer that started from ``x``."""
    options = {"weight_bits": bits, "act_bits": bits, "first_last": "same"} | options
    student = daqakd.quantize(nn.Linear(1, 1), method=method, flavour="mqbench", **options)
    return daqakd.calibrate(student, x.reshape(-1, 1)).act_quantizer


@pytest.mark.parametrize(
    ("bits", "wanted"),
    [
        (4, [-1.0666, -0.4, 0.0, 0.26666, 0.66665]),
        (3, [-0.85712, -0.28571, 0.0, 0.28571, 0.57142]),
        (2, [-1.3333, -0.66665, 0.0, 0.0, 0.66665]),
    ],
)
def test_dorefa_has_the_published_values(bits, wanted):
    found = MQBenchDoReFaWeight(W, bits)(W)
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=0, atol=6e-5)


@pytest.mark.parametrize(
    ("bits", "step"), [(8, 0.121272), (4, 0.516551), (3, 0.789045), (2, 1.366667)]
)
def test_lsq_starts_at_the_published_steps(bits, step):
    assert MQBenchLSQWeight(X, bits).step.item() == pytest.approx(step, abs=1e-6)


def test_lsq_has_the_published_values():
    wanted = torch.tensor([0, 0, 0.789045, 0.789045, 2.367136, -0.789045])
    torch.testing.assert_close(MQBenchLSQWeight(X, 3)(X), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("bits", "end"), [(8, 5.98), (4, 5.60), (3, 5.14), (2, 4.00)])
def test_pact_clips_where_it_was_published_to(bits, end):
    quantizer = MQBenchPACTActivation(bits, None)
    found = quantizer.quantize(torch.tensor([100.0, 5.999, -100.0]))
    assert found[0].item() == found[1].item() == pytest.approx(end, abs=5e-3)
    assert found[2].item() == pytest.approx(-end - 12 / (2**bits - 1), abs=5e-3)


def rounded(x, step, bits):
    """Return the formula in the dtype of ``x``, with PyTorch's gradient of affine quantization."""
    codes = (x / step).round()
    inside = (codes >= -(2 ** (bits - 1))) & (codes <= 2 ** (bits - 1) - 1)
    value = codes.clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * step
    return value.detach() + torch.where(inside, x - x.detach(), 0.0)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_dorefa_s_gradient_flows_through_tanh_and_the_maximum(bits):
    w = torch.randn(200, generator=torch.Generator().manual_seed(bits))
    g = torch.linspace(-1, 2, 200)
    quantizer, own = MQBenchDoReFaWeight(w, bits), w.clone().requires_grad_()
    quantizer(own).backward(g)
    exact = w.double().requires_grad_()
    t = exact.tanh()
    y = rounded(t / (t.abs().max() + 1e-5), quantizer.step.double(), bits)
    y.backward(g.double())
    torch.testing.assert_close(quantizer(w).double(), y.detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(own.grad.double(), exact.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("sign", [1, -1])
def test_lsq_s_gradients_are_those_of_the_formula(bits, sign):
    x, g = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(bits)), torch.rand(4, 5, 6)
    quantizer = calibrated("lsq", bits, x)
    quantizer.step.data *= sign
    own = x.clone().requires_grad_()
    quantizer.quantize(own).backward(g)
    qmin, qmax, step = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, quantizer.step.abs().double()
    codes = (x / step).round()
    inside = (codes >= qmin) & (codes <= qmax)
    by_step = torch.where(inside, codes - x / step, codes.clamp(qmin, qmax))
    wanted = (g * by_step).sum() / math.sqrt(x.numel() * qmax)  # the batch counts, too
    assert quantizer.step.grad.item() == pytest.approx(sign * wanted.item(), rel=1e-4)
    assert torch.equal(own.grad, g * inside)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("method", METHODS)
def test_half_of_the_levels_are_left_after_a_relu(method, bits):
    x = 10 * torch.rand(4000, generator=torch.Generator().manual_seed(0)) ** 6
    quantizer = calibrated(method, bits, x, pact_alpha=1.0)
    assert len(quantizer.quantize(x).unique()) == 2 ** (bits - 1)
    assert quantizer.known_signed


def test_a_prediction_of_dorefa_depends_on_the_batch():
    quantizer = calibrated("dorefa", 8, X)
    beside = torch.cat([X, torch.tensor([9.0])])
    assert not torch.equal(quantizer(X), quantizer(beside)[:6])


@pytest.mark.parametrize("method", METHODS)
def test_quantizer_parameters_train_like_weights(method):
    student = quantized(method)
    groups = daqakd.param_groups(student, 0.004, 1e-4)
    assert [(g["name"], g["lr"], g["weight_decay"]) for g in groups] == [("model", 0.004, 1e-4)]
    assert len(groups[0]["params"]) == len(list(student.parameters()))


def test_alpha_never_moves_and_steps_do():
    alphas = [v for n, v in trained("pact").model.named_parameters() if n.endswith("alpha")]
    assert len(alphas) == 3
    assert all(alpha.item() == 6 and not alpha.requires_grad for alpha in alphas)
    start = dict(daqakd.calibrate(quantized(), torch.rand(8, 3, 16, 16)).named_parameters())
    moved = [n for n, v in trained().model.named_parameters() if not torch.equal(v, start[n])]
    assert sum(n.endswith("step") for n in moved) == 6


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_ends_in_the_same_bits(method, tmp_path):
    whole = trained(method, run_dir=tmp_path / "whole")
    with killed_at(4):
        trained(method, TrainConfig(**{**vars(CONFIG), "checkpoint_seconds": 0.0}), tmp_path / "c")
    again = trained(method, run_dir=tmp_path / "c")
    assert again.history == whole.history
    assert equal(again.model.state_dict(), whole.model.state_dict())


@pytest.mark.parametrize("method", METHODS)
def test_files_hold_the_flavour_and_packed_ones_the_values(method, tmp_path):
    student, model, data = trained(method).model, "tests.helpers.small:small_net", small_dataset()
    recipe = {"weight_bits": 3, "act_bits": 3, "method": method, "flavour": "mqbench"}
    save_model(tmp_path / "student.safetensors", student, model, data, recipe, "minimal")
    file = read_model_file(tmp_path, "student")
    save_packed(tmp_path / "student.packed.safetensors", file, model)
    x = torch.rand(4, 3, 16, 16)
    for kind in ("student", "student.packed"):
        loaded = load_model(read_model_file(tmp_path, kind), model, 3).eval()
        assert loaded.conv2.act_quantizer.flavour == "mqbench"
        assert torch.equal(loaded(x), student(x))


def test_nothing_is_fused_and_the_reason_is_told():
    student = daqakd.calibrate(quantized(), torch.rand(8, 3, 16, 16))
    assert "mqbench-lsq" in str(daqakd.summary(daqakd.fuse(student)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "ewgs"}, r"^flavour: 'mqbench' has no ewgs"),
        ({"method": "seq"}, r"^flavour: 'mqbench' has no seq"),
        ({"weight_bits": 1, "method": "dorefa"}, r"^weight_bits: 1 bit has no positive code"),
        ({"act_bits": 1}, r"^act_bits: 1 bit has no positive code"),
        ({"per_channel": True}, r"^per_channel: .*one step for a whole weight"),
        ({"save": "codes"}, r"^save: 'codes'"),
    ],
)
def test_what_it_cannot_do_is_said(options, message):
    with pytest.raises(InputError, match=message):
        quantized(**options)


@pytest.mark.parametrize("name", ["quantizer_lr", "alpha_decay"])
def test_options_of_groups_that_are_not_there_are_refused(name):
    with pytest.raises(InputError, match=rf"^{name}: the quantizers of flavour='mqbench' train"):
        trained(config=TrainConfig(**{**vars(CONFIG), name: 1e-3}))
