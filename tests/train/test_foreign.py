"""Teachers as others save them: nested, wrapped, averaged; or one sentence says what is wanted."""

import re
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from daqakd import InputError
from daqakd.models import check_logits, logits_of
from daqakd.train.store import load_model, read_model_file

from ..helpers.small import SmallNet

NAME = "tests.helpers.small:small_net"


def under(prefix: str, state: dict) -> dict:
    return {prefix + k: v for k, v in state.items()}


def averaged(model, **options) -> dict:
    average = AveragedModel(model, **options)
    average.update_parameters(model)
    return average.state_dict()


def compiled(model) -> dict:
    module: Any = torch.compile(model)
    return module.state_dict()


def compiled_inside(model) -> dict:
    return under("_orig_mod.", {k.replace("bn1.", "bn1._orig_mod."): v for k, v in state(model)})


def state(model):
    return model.state_dict().items()


KINDS = {
    "plain": lambda m: m.state_dict(),
    "parallel": lambda m: under("module.", m.state_dict()),
    "compiled": compiled,
    "compiled-parallel": lambda m: {"model": under("module._orig_mod.", m.state_dict())},
    "compiled-inside": compiled_inside,
    "swa": averaged,
    "swa-buffers": lambda m: averaged(m, use_buffers=True),
    "swa-nested": lambda m: {"swa": 1, "model_state_dict": averaged(m)},
    "ema": lambda m: {"ema": averaged(m, multi_avg_fn=get_ema_multi_avg_fn(0.9)), "epoch": 3},
    "timm-ema": lambda m: {"epoch": 1, "arch": "x", "state_dict_ema": m.state_dict()},
    "lightning": lambda m: {
        "pytorch-lightning_version": "2.5",
        "state_dict": {**under("model.", m.state_dict()), "criterion.weight": torch.ones(3)},
        "optimizer_states": [{}],
    },
    "lightning-compiled": lambda m: {"state_dict": under("net._orig_mod.", m.state_dict())},
    "nested-twice": lambda m: {"checkpoint": 1, "model": {"state_dict": m.state_dict()}},
    "fsdp": lambda m: under("_fsdp_wrapped_module.", m.state_dict()),
    "half": lambda m: m.half().state_dict(),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_it_loads(kind, suffix, tmp_path):
    model, path = SmallNet(), tmp_path / f"t{suffix}"
    wanted = {k: v.clone() for k, v in model.state_dict().items()}
    content = KINDS[kind](model)
    if suffix == ".pth":
        torch.save(content, path)
    elif all(isinstance(v, torch.Tensor) for v in content.values()):
        save_file(content, path)
    else:
        pytest.skip("a safetensors file holds tensors only")
    found = load_model(read_model_file(path), NAME, 3).state_dict()
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert torch.allclose(found[key].float(), value.float(), atol=1e-3), key


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda s: {**under("ema_model.", s), **under("online_model.", s)},
            "holds several models, under the prefixes ema_model., online_model.; save the state_d",
        ),
        (lambda s: {"epoch": 3, "best": 0.9}, "no tensors, expected a state_dict.*holds epoch, b"),
        (lambda s: [s], "holds a list, expected a state_dict"),
        (lambda s: {}, "holds no tensors"),
        (lambda s: under("model.", {k: v for k, v in s.items() if "fc" not in k}), "lacks bn1"),
        (lambda s: {1: torch.ones(2)}, "has unknown 1"),
    ],
    ids=["two-models", "no-state", "list", "empty", "half-a-model", "numbers"],
)
def test_it_says_what_is_wanted(make, message, tmp_path):
    torch.save(make(SmallNet().state_dict()), tmp_path / "t.pth")
    with pytest.raises(InputError, match=message) as caught:
        load_model(read_model_file(tmp_path / "t.pth"), NAME, 3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".PTH", ".Pt", ".model", ".pkl", "", ".weights"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_known_by_its_content(tmp_path, suffix, zipped):
    model = SmallNet().eval()
    place = tmp_path / f"teacher{suffix}"
    torch.save(model.state_dict(), place, _use_new_zipfile_serialization=zipped)
    loaded = load_model(read_model_file(place), NAME, 3)
    assert torch.equal(loaded.fc.weight, model.fc.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x * float("nan"), "fc.weight holds NaN"),
        (lambda x: (100 * x).to(torch.int8), "fc.weight holds torch.int8, not floats"),
        (lambda x: x.to_sparse(), "fc.weight is sparse"),
        (lambda x: x.to("meta"), "fc.weight is .*without values"),
        (lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8), "fc.weight is .*quantized"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # torch's own, of quantized and sparse tensors
def test_a_state_dict_without_usable_numbers(tmp_path, change, message):
    state = SmallNet().state_dict()
    state["fc.weight"] = change(state["fc.weight"])
    torch.save(state, tmp_path / "t.pth")
    with pytest.raises(InputError, match=f"t.pth: .*{message}"):
        load_model(read_model_file(tmp_path / "t.pth"), NAME, 3)


class Output:
    """As transformers' ModelOutput."""

    def __init__(self, logits) -> None:
        self.logits = logits


LOGITS, OTHER = torch.eye(3)[:2], torch.zeros(5)


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        (LOGITS, OTHER),
        [None, LOGITS],
        {"logits": LOGITS},
        {"loss": OTHER, "logits": LOGITS},
        {"out": LOGITS, "aux": OTHER},
        Output(LOGITS),
    ],
)
def test_logits_are_found_in_what_models_return(output):
    assert logits_of(output) is LOGITS


@pytest.mark.parametrize("output", [None, (), {}, 3.0, "text", {"logits": None}, Output(None)])
def test_outputs_without_logits_say_what_is_wanted(output):
    with pytest.raises(InputError, match=rf"{type(output).__name__} without a tensor; expected"):
        logits_of(output)


def test_a_model_is_tried_before_any_work():
    class Strange(SmallNet):
        answer = None

        def forward(self, x):
            assert not self.training
            if isinstance(self.answer, Exception):
                raise self.answer
            return super().forward(x) if self.answer is None else self.answer

    model, images = Strange().train(), torch.zeros(2, 3, 16, 16)
    check_logits(model, images, 3, "strange")
    assert model.training
    for answer, message in (
        (
            RuntimeError("mat1 and mat2\nlong"),
            r"strange: .*\(3, 16, 16\), .*\(RuntimeError: mat1 and",
        ),
        (torch.zeros(2, 4), r"returned \(2, 4\) for 2 images, expected logits \(2, 3\)"),
        (torch.zeros(2, 3, 1, 1), r"returned \(2, 3, 1, 1\)"),
        (torch.zeros(3), r"returned \(3,\)"),
    ):
        model.answer = answer
        with pytest.raises(InputError, match=message) as caught:
            check_logits(model, images, 3, "strange")
        assert not re.search("\n|long", str(caught.value))
        assert model.training
