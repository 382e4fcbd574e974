"""The trainer fuses a student while it trains it, and gives it back as it was."""

from dataclasses import replace

import pytest
import torch

import daqakd
from daqakd import InputError
from daqakd.quant.fusion.plan import fusion_of
from daqakd.train.loop import Loop
from daqakd.train.store import load_model, read_model_file, save_model, save_packed

from ..helpers.fusible import OpCalls
from ..helpers.killed import Killed
from ..helpers.small import SmallNet, small_dataset
from .test_resume import CONFIG, cut_short, distilled, teacher

OFF = replace(CONFIG, fuse="off")
MODEL = "tests.helpers.small:small_net"


def test_training_is_fused_and_the_result_is_not():
    with OpCalls() as calls:
        fused = distilled(None)
    steps = 2 * (len(small_dataset().fit) // CONFIG.batch_size)
    assert sum(call["training"] for call in calls.made) == steps
    with OpCalls() as calls:
        plain = distilled(None, config=OFF)
    assert len(calls) == 0
    assert type(fused.model) is type(plain.model) is SmallNet
    for row, wanted in zip(fused.history, plain.history, strict=True):
        assert row["loss"] == pytest.approx(wanted["loss"], rel=0.05)  # ties fall either way


def test_options_belong_to_a_run(tmp_path):
    distilled(tmp_path, config=replace(CONFIG, epochs=1))
    with pytest.raises(InputError, match=r"with other options: fuse \(auto there, off here\)"):
        distilled(tmp_path, config=OFF)
    with pytest.raises(InputError, match="fuse: expected 'auto' or 'off', got 'on'"):
        distilled(tmp_path, config=replace(CONFIG, fuse="on"))


@pytest.mark.parametrize("config", [CONFIG, OFF], ids=["auto", "off"])
@pytest.mark.parametrize("method", ["pact", "ewgs"])
def test_what_continues_ends_in_the_same_bits(tmp_path, config, method):
    def run(folder, config=config):
        return distilled(tmp_path / folder, config=config, method=method)

    whole = run("whole")
    cut_short(lambda config: run("cut", config), config)
    again = run("cut")
    assert again.history == whole.history
    pairs = zip(again.model.state_dict().values(), whole.model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("config", [CONFIG, OFF], ids=["auto", "off"])
@pytest.mark.parametrize("given_fused", [False, True])
def test_a_student_is_as_it_was_whatever_happens(monkeypatch, config, given_fused):
    student = daqakd.quantize(teacher(), weight_bits=3, act_bits=3)
    student = daqakd.fuse(student) if given_fused else student
    seen = []

    def stop(self):
        seen.append(fusion_of(self.model) is not None)
        raise Killed

    monkeypatch.setattr(Loop, "_finish_epoch", stop)
    with pytest.raises(Killed):
        daqakd.distill(student, teacher(), small_dataset(), strategy="minimal", config=config)
    assert seen == [config.fuse == "auto"]
    assert (fusion_of(student) is not None) == given_fused


def test_a_fused_student_packs_and_loads_as_any(tmp_path):
    student = daqakd.fuse(distilled(None).model)
    x = torch.randn(4, 3, 16, 16)
    dataset = small_dataset()
    recipe = {"weight_bits": 3, "act_bits": 3, "method": "lsq", "per_channel": False}
    recipe["first_last"] = "8bit"
    save_model(tmp_path / "student.safetensors", student, MODEL, dataset, recipe, "minimal")
    file = read_model_file(tmp_path, "student")
    loaded = load_model(file, MODEL, 3).eval()
    save_packed(tmp_path / "student.packed.safetensors", file, MODEL)
    packed = load_model(read_model_file(tmp_path, "student.packed"), MODEL, 3).eval()
    wanted = student.eval()(x)
    assert type(loaded) is SmallNet
    assert torch.equal(loaded(x), packed(x))
    assert torch.equal(daqakd.fuse(packed).eval()(x), wanted)
    torch.testing.assert_close(loaded(x), wanted, rtol=0.1, atol=0.1)
