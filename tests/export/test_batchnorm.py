"""``fold_batchnorm``: the same layers' outputs from the same codes, and what stays as it is."""

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import daqakd
from daqakd import InputError
from daqakd.export.batchnorm import FoldedNorm, FoldedWeight
from daqakd.models import build
from daqakd.quant.layers import QuantLayer

from ..helpers.killed import equal
from ..helpers.small import SlimResNet, SmallNet

METHODS = {
    "lsq": {},
    "per_channel": {"per_channel": True},
    "pact": {"method": "pact"},
    "dorefa": {"method": "dorefa"},
    "1-bit dorefa": {"method": "dorefa", "weight_bits": 1},
    "ewgs": {"method": "ewgs", "delta": 0.1},
    "mqbench": {"flavour": "mqbench"},
    "weights": {"act_bits": None},
    "activations": {"weight_bits": None},
    "mixed": {"exclude": ["blocks.1.conv1"], "first_last": "fp"},
}
MODELS = ["resnet20-headnorm", "mobilenet_v2", "vgg8"]
IMAGES = torch.linspace(-2, 2, 3 * 3 * 32 * 32).sin().view(3, 3, 32, 32)


def with_statistics(model):
    """Give norms values as after training, a weight below 0 and one of 0 among them."""
    torch.manual_seed(7)
    for norm in [m for m in model.modules() if isinstance(m, _BatchNorm)]:
        if norm.track_running_stats:
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.5, 2)
        if norm.affine:
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
            norm.weight.data[0] = 0
    return model


def student(model, images=IMAGES, **options):
    made = daqakd.quantize(model, **({"weight_bits": 3, "act_bits": 4} | options))
    daqakd.calibrate(made, [images])
    return made.eval()


def outputs_at(model, names, images):
    """Return what the modules of these names give, float64: no value lies within its rounding."""
    found, hooks = {}, []
    model = model.double()
    for name in names:
        take = lambda module, args, y, name=name: found.__setitem__(name, y.clone())  # noqa: E731
        hooks.append(model.get_submodule(name).register_forward_hook(take))
    with torch.no_grad():
        found[""] = model(images.double())
    for hook in hooks:
        hook.remove()
    return found


def assert_folded(made, folded, images=IMAGES, norms=None):
    names = [n for n, m in folded.named_modules() if isinstance(m, FoldedNorm)]
    assert norms is None or len(names) == norms
    layers = [n for n, m in made.named_modules() if isinstance(m, QuantLayer)]
    for name in layers:
        before, after = made.get_submodule(name), folded.get_submodule(name)
        if before.weight_quantizer is not None:
            codes = after.weight_quantizer.codes(after.weight)
            assert torch.equal(codes, before.weight_quantizer.codes(before.weight))
    was, now = (outputs_at(m, names, images) for m in (made, folded))
    for name in was:
        torch.testing.assert_close(now[name], was[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
def test_every_norm_gives_what_it_gave(options):
    made = student(with_statistics(SlimResNet()), **options)
    before = {k: v.clone() for k, v in made.state_dict().items()}
    folded = daqakd.fold_batchnorm(made)
    assert equal(made.state_dict(), before)
    assert not any(isinstance(m, _BatchNorm) for m in folded.modules())
    assert_folded(made, folded)


@pytest.mark.parametrize("name", MODELS)
def test_models_of_ours(name):
    made = student(with_statistics(build(name, 5)), method="ewgs")
    folded = daqakd.fold_batchnorm(daqakd.fuse(made))
    left = [n for n, m in folded.named_modules() if isinstance(m, _BatchNorm)]
    assert left == (["head_norm"] if name == "resnet20-headnorm" else [])
    assert_folded(made, folded)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
def test_a_file_of_a_folded_student(tmp_path, options, packed):
    folded = daqakd.fold_batchnorm(student(with_statistics(SlimResNet()), **options))
    daqakd.save(folded, tmp_path / "a", packed=packed)
    found = daqakd.load(tmp_path / "a", SlimResNet())
    assert torch.equal(found(IMAGES), folded(IMAGES))
    if not packed:
        assert equal(found.state_dict(), folded.state_dict())
        twin = daqakd.fold_batchnorm(student(SlimResNet(), **options))
        twin.load_state_dict(folded.state_dict())
        assert torch.equal(twin(IMAGES), folded(IMAGES))
        assert torch.equal(daqakd.load(tmp_path / "a", twin)(IMAGES), folded(IMAGES))


@pytest.mark.parametrize("name", MODELS)
def test_a_file_of_ours_needs_no_model(tmp_path, name):
    folded = daqakd.fold_batchnorm(student(with_statistics(build(name, 5))))
    daqakd.save(folded, tmp_path / "a")
    assert torch.equal(daqakd.load(tmp_path / "a")(IMAGES), folded(IMAGES))


class Odd(nn.Module):
    """Norms that cannot go into the layer before them, and two that can."""

    def __init__(self) -> None:
        super().__init__()
        self.read_twice, self.bn1 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.called_twice, self.bn2 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.bn3 = nn.BatchNorm2d(4)
        self.without_statistics = nn.BatchNorm2d(4, track_running_stats=False)
        self.hooked, self.bn4 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.hooked.register_forward_hook(lambda m, a, y: 2 * y)
        self.conv, self.bn5 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, affine=False)
        self.fc, self.bn6 = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        y = self.read_twice(x)
        y = self.bn1(y) + y
        y = self.bn2(self.called_twice(y)) + self.bn3(self.called_twice(-y))
        y = self.without_statistics(y)
        y = self.bn4(self.hooked(y))
        y = self.bn5(self.conv(y))
        return self.last(self.bn6(self.fc(y.mean((2, 3)))))


def test_what_cannot_be_folded_stays():
    made = student(with_statistics(Odd()))
    folded = daqakd.fold_batchnorm(made)
    names = [n for n, m in folded.named_modules() if isinstance(m, FoldedNorm)]
    assert names == ["bn5", "bn6"]
    assert_folded(made, folded)


LAYERS = {
    "conv1d": (nn.Conv1d(3, 4, 3), nn.BatchNorm1d, (3, 9)),
    "conv3d": (nn.Conv3d(2, 4, 2), nn.BatchNorm3d, (2, 4, 4, 4)),
    "transposed1d": (nn.ConvTranspose1d(3, 4, 3), nn.BatchNorm1d, (3, 9)),
    "transposed2d": (nn.ConvTranspose2d(3, 4, 3, 2, bias=False), nn.BatchNorm2d, (3, 5, 5)),
    "transposed3d": (nn.ConvTranspose3d(2, 4, 2), nn.BatchNorm3d, (2, 3, 3, 3)),
}


@pytest.mark.parametrize("options", [{}, {"per_channel": True}, {"method": "ewgs"}], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_every_kind_of_convolution(name, options):
    layer, norm, shape = LAYERS[name]
    model, images = nn.Sequential(layer, norm(4), nn.Flatten()), torch.randn(5, *shape)
    made = student(with_statistics(model), images, first_last="same", **options)
    assert_folded(made, daqakd.fold_batchnorm(made), images, norms=1)


def test_groups_of_a_transposed_convolution_share_their_scales():
    model = nn.Sequential(nn.ConvTranspose2d(4, 4, 3, groups=2), nn.BatchNorm2d(4))
    images = torch.randn(5, 4, 6, 6)
    made = student(with_statistics(model), images, first_last="same")
    assert_folded(made, daqakd.fold_batchnorm(made), images, norms=0)


class Branches(nn.Module):
    """A part that cannot be traced, with blocks inside that can."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.conv, self.bn = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        x = self.block(x)
        y = self.bn(self.conv(x))
        return self.fc((y if y.sum() > 0 else -y).mean((2, 3)))


def test_a_traceable_part_of_a_model_is_folded():
    made = student(with_statistics(Branches()))
    folded = daqakd.fold_batchnorm(made)
    names = [n for n, m in folded.named_modules() if isinstance(m, FoldedNorm)]
    assert names == ["block.1"]
    assert_folded(made, folded)


def test_a_linear_layers_norm_over_another_axis_is_noticed():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    made = student(with_statistics(model), torch.randn(5, 4, 4), first_last="same")
    made(torch.randn(5, 4, 4))
    folded = daqakd.fold_batchnorm(made)
    folded(torch.randn(5, 4))
    with pytest.raises(InputError, match=r"whose output here is \(5, 4, 4\); do not fold"):
        folded(torch.randn(5, 4, 4))


def test_what_others_ask_of_a_folded_student():
    made = student(with_statistics(SmallNet()), first_last="same")
    folded = daqakd.fold_batchnorm(made)
    row = daqakd.summary(folded).layers[0]
    before = daqakd.summary(made).layers[0]
    assert (row.granularity, row.weight_bits, row.method) == ("channel", 3, before.method)
    factor = folded.conv1.weight_quantizer.factor.abs().mean().item()
    assert row.weight_step == pytest.approx(before.weight_step * factor)
    with pytest.warns(UserWarning, match="activations are no longer"):
        plain = daqakd.dequantize(folded)
    assert torch.equal(plain.conv1.weight, folded.conv1.quantized_weight())
    again = daqakd.fold_batchnorm(folded)
    assert torch.equal(again(IMAGES), folded(IMAGES))
    assert isinstance(again.conv1.weight_quantizer, FoldedWeight)


def test_sentences(tmp_path):
    with pytest.raises(InputError, match="student: has no quantized layer"):
        daqakd.fold_batchnorm(SmallNet())
    with pytest.raises(InputError, match="student"):
        daqakd.fold_batchnorm(3)
    daqakd.save(daqakd.fold_batchnorm(student(Branches())), tmp_path / "a")

    class Traceable(Branches):
        def forward(self, x):
            return self.fc(self.bn(self.conv(self.block(x))).mean((2, 3)))

    with pytest.raises(InputError, match="has 1 BatchNorms folded, and Traceable has 2 that can"):
        daqakd.load(tmp_path / "a", Traceable())
