"""Models by name: exact parameter counts, shapes, and functions of the user's own."""

import pytest
import torch

from daqakd import InputError
from daqakd.models import VGG, build

# method section 4: the paper's counts, head_norm where it has the extra BatchNorm1d
COUNTS = [
    ("resnet20", 10, 269_722),
    ("resnet20-headnorm", 10, 269_850),
    ("resnet20-headnorm", 100, 275_700),
    ("resnet32-headnorm", 10, 464_282),
    ("resnet32-headnorm", 100, 470_132),
    ("resnet44", 10, 658_586),
    ("resnet44-headnorm", 100, 664_564),
    ("resnet56", 10, 853_018),
    ("resnet56-headnorm", 100, 858_996),
    ("vgg8", 10, 3_918_858),
    ("vgg8", 100, 3_965_028),
    ("vgg13", 10, 9_416_010),
    ("vgg13", 100, 9_462_180),
    ("resnet18", 200, 11_279_112),
    ("mobilenet_v2", 200, 2_480_072),
]


@pytest.mark.parametrize(("name", "classes", "count"), COUNTS)
def test_parameter_counts(name, classes, count):
    assert sum(p.numel() for p in build(name, classes).parameters()) == count


@pytest.mark.parametrize("name", ["resnet20", "resnet20-headnorm", "vgg8", "mobilenet_v2"])
@pytest.mark.parametrize("side", [32, 64])
def test_any_side_gives_logits(name, side):
    assert build(name, 7).eval()(torch.randn(2, 3, side, side)).shape == (2, 7)


def test_a_function_of_the_users_own():
    model = build("torchvision.models:shufflenet_v2_x0_5", 4).eval()
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet-20", "unknown model.*Did you mean 'resnet20'"),
        ("nowhere.at:all", "No module named 'nowhere'.*package.module:function"),
        ("torch:nothing", "no attribute 'nothing'"),
        ("torch:float32", "not callable"),
    ],
)
def test_wrong_models_say_what_to_do(name, message):
    with pytest.raises(InputError, match=message):
        build(name, 3)


def test_a_vgg_may_be_slimmer():
    widths = (16, 32, 64, 128, 128)
    model = VGG((1, 1, 1, 1, 1), 10, widths)
    assert [group[0].out_channels for group in model.groups] == list(widths)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    whole = VGG((1, 1, 1, 1, 1), 10)
    assert [p.shape for p in whole.parameters()] == [
        p.shape for p in build("vgg8", 10).parameters()
    ]
