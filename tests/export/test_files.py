"""``save`` and ``load``: the same outputs from one file, and sentences for what does not fit."""

import pytest
import torch
from torch import nn

import daqakd
from daqakd import InputError
from daqakd.models import build

from ..helpers.killed import equal
from ..helpers.small import SlimResNet, SmallNet, small_dataset, write_images

IMAGES = torch.linspace(-2, 2, 4 * 3 * 16 * 16).view(4, 3, 16, 16)
METHODS = {
    "lsq": {},
    "per_channel": {"per_channel": True},
    "pact": {"method": "pact", "pact_alpha": 3.0},
    "dorefa": {"method": "dorefa"},
    "ewgs": {"method": "ewgs", "delta": 0.1},
    "hessian": {"method": "ewgs", "delta": "hessian"},
    "mqbench": {"flavour": "mqbench"},
    "weights": {"act_bits": None},
    "activations": {"weight_bits": None},
    "mixed": {"exclude": ["fc"], "overrides": {"conv2": {"weight_bits": 8, "act_method": "pact"}}},
}


def student(net=SmallNet, seed=0, **options):
    torch.manual_seed(seed)
    made = daqakd.quantize(net(), **({"weight_bits": 3, "act_bits": 4} | options))
    daqakd.calibrate(made, [IMAGES])
    return made.eval()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
def test_a_file_gives_the_same_outputs(tmp_path, options, packed):
    path, made = tmp_path / "a.safetensors", student(**options)
    daqakd.save(made, path, packed=packed)
    found = daqakd.load(path, SmallNet())
    assert not found.training
    assert torch.equal(found(IMAGES), made(IMAGES))
    if not packed:
        assert equal(found.state_dict(), made.state_dict())


@pytest.mark.parametrize("name", ["resnet20-headnorm", "mobilenet_v2", "vgg8"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_model_of_ours_needs_no_other(tmp_path, name, packed):
    path = tmp_path / "a.safetensors"
    made = student(lambda: build(name, 7))
    daqakd.save(daqakd.fuse(made), path, packed=packed)
    found = daqakd.load(path)
    assert type(found) is type(made)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(found(images), made(images))


def test_a_deeper_model_is_not_taken_for_ours(tmp_path):
    from torchvision.models import resnet34

    daqakd.save(student(lambda: resnet34(num_classes=7)), tmp_path / "a")
    with pytest.raises(InputError, match="is of ResNet, which is none of ours; pass a model"):
        daqakd.load(tmp_path / "a")


def test_a_trained_student_goes_on_from_its_file(tmp_path):
    made, config = student(), daqakd.TrainConfig(epochs=1, batch_size=16, workers=0)
    dataset = small_dataset()
    daqakd.distill(made, SmallNet(), dataset, strategy="minimal", config=config)
    daqakd.save(made, tmp_path / "a")
    found = daqakd.load(tmp_path / "a", student(seed=5))
    assert equal(found.state_dict(), made.state_dict())
    both = [
        daqakd.distill(one, build_teacher(), dataset, strategy="minimal", config=config)
        for one in (made, found)
    ]
    assert both[0].history == both[1].history


def build_teacher():
    torch.manual_seed(3)
    return SmallNet()


def test_a_file_of_train_is_one_of_these(tmp_path):
    from daqakd.cli.main import main

    tree = write_images(tmp_path / "tree")
    own = ("--model", "tests.helpers.small:small_net", "--batch-size", "16")
    assert main(["teach", str(tree), "--epochs", "2", *own, "--out", str(tmp_path / "t")]) == 0
    line = ["train", str(tree), "--teacher", str(tmp_path / "t"), *own, "--strategy", "minimal"]
    assert main([*line, "--epochs", "1", "--out", str(tmp_path / "s")]) == 0
    whole = daqakd.load(tmp_path / "s" / "student.safetensors", SmallNet())
    packed = daqakd.load(tmp_path / "s" / "student.packed.safetensors", SmallNet())
    assert torch.equal(whole(IMAGES), packed(IMAGES))
    with pytest.raises(InputError, match="does not list its quantizers"):
        daqakd.load(tmp_path / "s" / "student.safetensors", student(weight_bits=2, act_bits=2))


def test_what_is_given_is_not_changed(tmp_path):
    made, plain = student(), SmallNet()
    before = {k: v.clone() for k, v in plain.state_dict().items()}
    daqakd.save(made, tmp_path / "a")
    daqakd.load(tmp_path / "a", plain)
    assert equal(plain.state_dict(), before)
    assert not hasattr(plain.conv1, "act_quantizer")
    other = student(seed=1)
    before = {k: v.clone() for k, v in other.state_dict().items()}
    daqakd.load(tmp_path / "a", other)
    assert equal(other.state_dict(), before)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weight_bits": 2}, "conv2.weight_quantizer is lsq, 3 bits, per tensor there and lsq, 2"),
        ({"act_bits": 8}, "conv2.act_quantizer is lsq, 4 bits, per tensor there and lsq, 8 bits"),
        ({"method": "ewgs"}, "is lsq, 8 bits, per tensor there and ewgs, 8 bits"),
        ({"per_channel": True}, "per tensor there and lsq, 8 bits, per channel here"),
        ({"exclude": ["fc"]}, "fc.act_quantizer is lsq, 8 bits, per tensor there and absent here"),
        ({"flavour": "mqbench"}, "per tensor, mqbench here; pass the full-precision model"),
    ],
)
def test_a_student_of_other_bits_is_refused(tmp_path, options, said):
    daqakd.save(student(), tmp_path / "a")
    with pytest.raises(InputError, match=said):
        daqakd.load(tmp_path / "a", student(**options))


def test_sentences(tmp_path):
    path = tmp_path / "a"
    with pytest.raises(InputError, match="student: has no quantizers"):
        daqakd.save(SmallNet(), path)
    with pytest.raises(InputError, match="does not know what it was quantized with"):
        daqakd.save(nn.Sequential(student()), path)
    with pytest.raises(InputError, match="packed: "):
        daqakd.save(student(), path, packed=1)
    with pytest.raises(InputError, match=r"is no file; pass one that daqakd\.save wrote"):
        daqakd.load(path)
    daqakd.save(student(), path)
    with pytest.raises(InputError, match="is of SmallNet, which is none of ours; pass a model"):
        daqakd.load(path)
    with pytest.raises(InputError, match="does not fit SlimResNet"):
        daqakd.load(path, SlimResNet())
    with pytest.raises(InputError, match="does not fit SmallNet with 5 classes"):
        daqakd.load(path, SmallNet(5))
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        daqakd.load(path, SmallNet())
    daqakd.save(student(), path, packed=True)
    with pytest.raises(InputError, match="is packed, so it has no weights for a student"):
        daqakd.load(path, student())
    from safetensors.torch import save_file

    save_file(SmallNet().state_dict(), path)
    with pytest.raises(InputError, match="holds no student of this package"):
        daqakd.load(path, SmallNet())
