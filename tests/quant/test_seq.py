"""SEQ's weights: where they start, how many levels they have, and what others make of them."""

import copy

import pytest
import torch
from torch import nn

import daqakd
from daqakd import InputError
from daqakd.export import export_program
from daqakd.quant.grids import weight_codes, weight_grid
from daqakd.quant.seq import SEQWeight

from ..helpers import truth
from ..helpers.killed import equal
from ..helpers.small import SmallNet

IMAGES = torch.linspace(-2, 2, 8 * 3 * 8 * 8).mul(37).sin().view(8, 3, 8, 8)
FORMS = {
    "2-bits": {},
    "ternary": {"weight_levels": 3},
    "1-bit": {"weight_bits": 1},
    "4-bits": {"weight_bits": 4},
    "channels": {"per_channel": True},
    "ternary-channels": {"weight_levels": 3, "per_channel": True},
    "8-bits": {"weight_bits": 8, "weight_levels": 201},
}
each_form = pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)


def student(model=SmallNet, seed=0, **options):
    torch.manual_seed(seed)
    options = {"weight_bits": 2, "act_bits": 3, "method": "seq"} | options
    made = daqakd.quantize(model(), **options)
    return daqakd.calibrate(made, [IMAGES]).eval()


def error_of(quantizer, w):
    with torch.no_grad():
        return (quantizer(w) - w).square().mean().item()


@pytest.mark.parametrize("levels", [2, 3, 4, 7, 16])
@pytest.mark.parametrize("heavy", [False, True], ids=["normal", "heavy-tailed"])
def test_starts_where_the_error_is_least(levels, heavy):
    torch.manual_seed(1)
    w = torch.randn(40, 50)
    w = w**3 if heavy else w
    found = error_of(SEQWeight(w, 4, False, levels=levels), w)
    tops = torch.linspace(0, float(w.abs().max()), 600)[1:]
    steps = 2 * tops / (levels - 1)
    best = min((truth.seq(w, s, levels=levels) - w).square().mean().item() for s in steps)
    assert found <= 1.1 * best


def test_each_channel_starts_as_it_would_alone():
    w = torch.randn(4, 3, 3, 3) * torch.tensor([0.1, 1.0, 3.0, 0.0]).view(-1, 1, 1, 1)
    found = SEQWeight(w, 2, True).step
    alone = [SEQWeight(w[i : i + 1], 2, False).step for i in range(4)]
    torch.testing.assert_close(found, torch.cat(alone))
    across = SEQWeight(w, 2, True, channel_axis=1).step
    assert across.shape == (3,)


def test_weights_of_zero_have_the_usual_step():
    w = torch.zeros(5, 3, 2, 2)
    step = SEQWeight(w, 2, False).step.item()
    assert step == pytest.approx(2 / 4 / 12**0.5)
    assert SEQWeight(w, 2, False)(w).unique().tolist() == [pytest.approx(step / 2)]
    model = nn.Linear(3, 2)
    nn.init.zeros_(model.weight)
    daqakd.quantize(model, weight_bits=2, act_bits=None, method="seq", first_last="same")


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("levels", [2, 3, 4])
def test_one_step_follows_the_formula(levels, axis):
    w = torch.randn(6, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    quantizer = SEQWeight(w, 2, axis is not None, axis or 0, levels=levels).double()
    g = torch.randn_like(w)
    quantizer(w).backward(g)
    per_step = {None: 216, 0: 36, 1: 54}[axis]
    inputs = w.detach(), quantizer.step.detach()
    y, dw, ds = truth.with_gradients(truth.seq, inputs, g, levels=levels, axis=axis)
    torch.testing.assert_close(quantizer(w), y)
    torch.testing.assert_close(w.grad, dw)
    scale = (per_step * (levels - 1) / 2) ** -0.5
    torch.testing.assert_close(quantizer.step.grad, (ds * scale).reshape(-1))
    assert quantizer.granularity == ("tensor" if axis is None else "channel")
    assert quantizer.step_size() == pytest.approx(quantizer.step.mean().item())


@each_form
def test_codes_and_the_line_to_values(options):
    made = student(first_last="same", **options)
    levels = options.get("weight_levels", 2 ** options.get("weight_bits", 2))
    for layer in (made.conv1, made.conv2, made.fc):
        quantizer, w = layer.weight_quantizer, layer.weight.detach()
        codes, value = quantizer.codes(w), quantizer(w)
        assert codes.dtype == torch.uint8
        assert codes.max() <= levels - 1
        assert torch.equal(quantizer.from_codes(codes), value)
        scale, offset = quantizer.affine(w)
        assert offset == (levels - 1) / 2
        scale = scale.view([-1, *[1] * (w.dim() - 1)])
        torch.testing.assert_close(scale * (codes - offset), value)
        grid = weight_grid(layer)
        torch.testing.assert_close(grid.levels(weight_codes(layer).float()), value)
        assert grid.steps == levels - 1


@each_form
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_files_and_copies(tmp_path, packed, options):
    made = student(**options)
    daqakd.save(made, tmp_path / "a", packed=packed)
    assert torch.equal(daqakd.load(tmp_path / "a", SmallNet())(IMAGES), made(IMAGES))
    twin = copy.deepcopy(made)
    assert equal(twin.state_dict(), made.state_dict())
    assert torch.equal(twin(IMAGES), made(IMAGES))
    other = student(seed=1, **options)
    other.load_state_dict(made.state_dict())
    assert torch.equal(other(IMAGES), made(IMAGES))


def test_other_levels_are_refused_by_name(tmp_path):
    four, three = student(), student(weight_levels=3)
    daqakd.save(three, tmp_path / "a")
    message = (
        "conv2.weight_quantizer is seq, 2 bits, 3 levels, per tensor there and seq, 2 bits, per"
        " tensor here"
    )
    with pytest.raises(InputError, match=message):
        daqakd.load(tmp_path / "a", four)
    with pytest.raises(
        RuntimeError, match=r"conv2\.weight_quantizer has 3 levels in the state_dict"
    ):
        four.load_state_dict(three.state_dict())
    with pytest.raises(RuntimeError, match=r"conv2\.weight_quantizer has 2 bits in the"):
        student(weight_bits=4).load_state_dict(three.state_dict())


@each_form
def test_folded_it_gives_the_same(tmp_path, options):
    made = student(**options).double()
    folded = daqakd.fold_batchnorm(made)
    torch.testing.assert_close(folded(IMAGES.double()), made(IMAGES.double()))
    folded = daqakd.fold_batchnorm(student(**options))
    for packed in (False, True):
        daqakd.save(folded, tmp_path / "a", packed=packed)
        assert torch.equal(daqakd.load(tmp_path / "a", SmallNet())(IMAGES), folded(IMAGES))


def levels_of(made):
    found = {name: getattr(made, name).weight_quantizer for name in ("conv1", "conv2", "fc")}
    return [(found[name].bits, getattr(found[name], "num_levels", None)) for name in found]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, [(8, 256), (2, 3), (8, 256)]),
        ({"first_last": "same"}, [(2, 3), (2, 3), (2, 3)]),
        ({"overrides": {"conv2": {"weight_bits": 3}}}, [(8, 256), (3, 8), (8, 256)]),
        ({"overrides": {"conv1": {"weight_bits": 2}}}, [(2, 3), (2, 3), (8, 256)]),
        ({"overrides": {"fc": {"weight_levels": 100}}}, [(8, 256), (2, 3), (8, 100)]),
        (
            {"overrides": {"fc": {"weight_bits": 3, "weight_levels": 5}, "*": {"act_bits": 4}}},
            [(8, 256), (2, 3), (3, 5)],
        ),
        ({"overrides": {"conv2": {"weight_method": "lsq"}}}, [(8, 256), (2, 4), (8, 256)]),
        ({"overrides": {"conv2": {"weight_levels": None}}}, [(8, 256), (2, 4), (8, 256)]),
    ],
    ids=str,
)
def test_which_layers_have_them(options, wanted):
    assert levels_of(student(weight_levels=3, **options)) == wanted


def test_embeddings_have_all_levels_of_their_width():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    options = {"weight_bits": 2, "act_bits": None, "embedding_bits": 2, "method": "seq"}
    made = daqakd.quantize(model, weight_levels=3, first_last="same", **options)
    assert [one.weight_quantizer.num_levels for one in made] == [4, 3, 3]
    with pytest.raises(InputError, match=r"^overrides\['0'\]: 0 has no weight_levels; its widths"):
        daqakd.quantize(model, overrides={"0": {"weight_levels": 3}}, **options)


def test_another_width_has_all_its_levels():
    quantizer = SEQWeight(torch.randn(40, 50), 2, False, levels=3)
    own = quantizer.grad_scale
    quantizer.set_bits(4)
    assert (quantizer.num_levels, quantizer.lowest) == (16, -7.5)
    quantizer.restart(torch.randn(40, 50))
    assert len(quantizer(torch.randn(40, 50)).unique()) == 16
    quantizer.set_bits(2)
    assert (quantizer.num_levels, quantizer.grad_scale) == (3, own)


def test_weights_and_steps_learn():
    made = student(act_bits=None).train()
    groups = daqakd.param_groups(made, 0.05, 1e-4)
    quantizer = made.conv2.weight_quantizer
    assert id(quantizer.step) in {id(p) for p in groups[1]["params"]}
    before, optimizer, losses = quantizer.step.item(), torch.optim.SGD(groups, lr=0.05), []
    for _ in range(20):
        loss = nn.functional.cross_entropy(made(IMAGES), torch.arange(8) % 3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert quantizer.step.item() != before


@pytest.mark.parametrize("levels", [3, 4])
def test_a_plain_model_has_the_values(levels):
    made = student(weight_levels=levels)
    plain = daqakd.dequantize(daqakd.quantize(SmallNet(), weight_bits=2, act_bits=None))
    with pytest.warns(UserWarning, match="no longer"):
        plain = daqakd.dequantize(made)
    assert len(plain.conv2.weight.unique()) == levels
    fused = daqakd.fuse(made)
    assert torch.equal(fused(IMAGES), made(IMAGES))


@pytest.mark.parametrize("levels", [3, 4])
def test_compiled_and_exported_it_is_the_same(tmp_path, levels):
    made = student(weight_levels=levels)
    compiled = torch.compile(copy.deepcopy(made), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(IMAGES), made(IMAGES))
    export_program(made, tmp_path / "a.pt2", IMAGES)
    torch.testing.assert_close(torch.export.load(tmp_path / "a.pt2").module()(IMAGES), made(IMAGES))


def test_rows_tell_the_levels():
    shown = str(daqakd.summary(student(weight_levels=3)))
    row = next(line for line in shown.splitlines() if line.startswith("conv2"))
    assert "2 (3 levels)" in row
    assert "seq/lsq" in row
    assert "levels" not in str(daqakd.summary(student()))


def test_by_the_command_line(tmp_path):
    from daqakd.cli.main import main

    from ..helpers.small import write_images

    tree = write_images(tmp_path / "tree", train=90, test=30)
    own = ("--model", "tests.helpers.small:small_net", "--batch-size", "16")
    assert main(["teach", str(tree), "--epochs", "1", *own, "--out", str(tmp_path / "t")]) == 0
    line = ["train", str(tree), "--teacher", str(tmp_path / "t"), *own, "--strategy", "minimal"]
    line += ["--epochs", "2", "-w", "2", "-a", "3", "-m", "seq", "--weight-levels", "3"]
    assert main([*line, "--out", str(tmp_path / "s")]) == 0
    assert main(["eval", str(tmp_path / "s"), "--model", own[1]]) == 0
    assert main(["eval", str(tmp_path / "s"), "--model", own[1], "--packed"]) == 0
    made = daqakd.load(tmp_path / "s" / "student.safetensors", SmallNet())
    assert made.conv2.weight_quantizer.num_levels == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_levels": 5}, "^weight_levels: .*from 2 to 4 for weight_bits=2, got 5"),
        ({"weight_levels": 1}, "^weight_levels: .*from 2 to 4 for weight_bits=2, got 1"),
        ({"weight_levels": 3.0}, r"^weight_levels: .*got 3\.0"),
        ({"weight_levels": 3, "method": "lsq"}, "^weight_levels: is for SEQ, .* are by lsq; use"),
        ({"weight_levels": 3, "weight_bits": None}, "^weight_levels: .* are in full precision"),
        ({"overrides": {"fc": {"weight_levels": 300}}}, r"^weight_levels \(overrides\['fc'\]\): "),
        ({"flavour": "mqbench"}, "^flavour: 'mqbench' has no seq"),
        ({"act_method": "seq"}, "^unknown act_method 'seq'"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_found(options, message):
    with pytest.raises(InputError, match=message):
        student(**options)
