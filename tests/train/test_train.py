"""Training: schedule, checkpoints, resuming bit for bit, model files, configuration."""

import errno
import os

import pytest
import torch
from safetensors.torch import save_file

import daqakd
from daqakd import InputError, TrainConfig
from daqakd.models import CIFARResNet, build
from daqakd.train import accuracy
from daqakd.train.loop import Loop
from daqakd.train.options_file import keep_options, read_options, to_toml
from daqakd.train.schedule import lr_factor
from daqakd.train.store import load_model, read_model_file, save_model

from ..helpers.killed import killed_at
from ..helpers.small import SmallNet, small_dataset

CONFIG = TrainConfig(epochs=2, batch_size=16, lr=0.01, workers=0)


def student_and_teacher():
    torch.manual_seed(0)
    teacher = SmallNet()
    return daqakd.quantize(teacher, weight_bits=3, act_bits=3), teacher


def distilled(run_dir=None, config=CONFIG, strategy="trivialaugment", dataset=None):
    student, teacher = student_and_teacher()
    data = dataset or small_dataset()
    return daqakd.distill(student, teacher, data, strategy=strategy, config=config, run_dir=run_dir)


def same_weights(a, b) -> bool:
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(k == m and torch.equal(v, w) for (k, v), (m, w) in pairs)


def test_cosine_ends_at_zero_and_warmup_reaches_the_peak():
    assert lr_factor(0, 100) == 1.0
    assert lr_factor(50, 100) == pytest.approx(0.5)
    assert lr_factor(100, 100) == 0.0
    start = 1e-4 / 0.05
    assert lr_factor(0, 156300, 2499, start) * 0.05 == pytest.approx(1e-4)
    assert lr_factor(2499, 156300, 2499, start) * 0.05 == pytest.approx(0.05)
    assert lr_factor(156300, 156300, 2499, start) == 0.0


@pytest.mark.parametrize("strategy", ["trivialaugment", "cutmix"])
@pytest.mark.parametrize("step", [1, 9, 13])
def test_a_run_stopped_anywhere_ends_like_an_uninterrupted_one(tmp_path, step, strategy):
    whole = distilled(tmp_path / "whole", strategy=strategy)
    every_step = TrainConfig(**{**vars(CONFIG), "checkpoint_seconds": 0.0})
    with killed_at(step + 1):
        distilled(tmp_path / "cut", every_step, strategy)
    again = distilled(tmp_path / "cut", CONFIG, strategy)
    assert same_weights(again.model, whole.model)
    assert again.history == whole.history
    files = [tmp_path / name / "metrics.csv" for name in ("whole", "cut")]
    assert files[0].read_text() == files[1].read_text()


def test_dropout_does_not_depend_on_where_a_run_was_cut(tmp_path):
    def taught(folder, config):
        torch.manual_seed(0)
        model = torch.nn.Sequential(SmallNet(8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3))
        return daqakd.teach(model, small_dataset(), config=config, run_dir=folder).model

    whole = taught(tmp_path / "whole", CONFIG)
    with killed_at(5):
        taught(tmp_path / "cut", TrainConfig(**{**vars(CONFIG), "checkpoint_seconds": 0.0}))
    assert same_weights(taught(tmp_path / "cut", CONFIG), whole)


def test_workers_do_not_change_the_result():
    with_workers = TrainConfig(**{**vars(CONFIG), "workers": 2})
    assert same_weights(distilled().model, distilled(config=with_workers).model)


def test_the_teacher_and_heldout_images_take_no_part():
    student, teacher = student_and_teacher()
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    dataset = small_dataset()
    spoilt = small_dataset()
    spoilt.train.pixels[spoilt.heldout] = 255
    a = daqakd.distill(student, teacher, dataset, strategy="cutmix", config=CONFIG)
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    b = distilled(dataset=spoilt, strategy="cutmix")
    assert same_weights(a.model, b.model)
    assert a.heldout_accuracy != b.heldout_accuracy


def test_students_learn():
    dataset = small_dataset(600)
    config = TrainConfig(epochs=4, batch_size=32, lr=0.01, workers=0)
    torch.manual_seed(0)
    teacher = daqakd.teach(SmallNet(), dataset, config=config).model
    student = daqakd.quantize(teacher, weight_bits=3, act_bits=3)
    daqakd.distill(student, teacher, dataset, strategy="minimal", config=config)
    shares = [accuracy(m, dataset.test, dataset.inputs) for m in (teacher, student)]
    assert min(shares) > 0.8


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    distilled(tmp_path, TrainConfig(**{**vars(CONFIG), "epochs": 1}))
    kept = (tmp_path / "checkpoint/student.safetensors").read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"No space left.*intact.*same command"):
        distilled(tmp_path)
    assert (tmp_path / "checkpoint/student.safetensors").read_bytes() == kept
    assert not list((tmp_path / "checkpoint").glob("*.tmp"))


def test_a_loss_that_is_no_number_names_the_tensor_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    distilled(tmp_path, TrainConfig(**{**vars(CONFIG), "epochs": 1}))
    kept = (tmp_path / "checkpoint/student.safetensors").read_bytes()
    original = Loop._step

    def spoil(self, batch):
        self.model.conv2.weight.data[0, 0, 0, 0] = float("nan")
        original(self, batch)

    monkeypatch.setattr(Loop, "_step", spoil)
    with pytest.raises(InputError, match=r"not a number at epoch 2.*conv2\.weight.*checkpoint"):
        distilled(tmp_path)
    assert (tmp_path / "checkpoint/student.safetensors").read_bytes() == kept


@pytest.mark.parametrize("field", ["epochs", "batch_size", "lr", "temperature"])
def test_options_that_cannot_be_meant(field):
    with pytest.raises(InputError, match=field):
        distilled(config=TrainConfig(**{**vars(CONFIG), field: 0}))


def test_config_is_settled_once(tmp_path):
    path = tmp_path / "config.toml"
    values = {"data": "digits", "epochs": 3, "mean": (0.5, 0.5, 0.5), "size": None}
    keep_options(path, "train", values)
    keep_options(path, "train", values)
    keep_options(path, "rank", {"seed": 1})
    assert read_options(path)["train"]["mean"] == [0.5, 0.5, 0.5]
    with pytest.raises(InputError, match=r"another configuration: epochs \(3 there, 4 here\)"):
        keep_options(path, "train", {**values, "epochs": 4})
    assert read_options(path)["train"]["epochs"] == 3
    assert to_toml({"a": 'x"y', "b": True}) == 'a = "x\\"y"\nb = true\n'


def test_model_files_carry_everything(tmp_path):
    dataset = small_dataset(classes=3)
    student = daqakd.quantize(build("resnet20", 3), weight_bits=2, act_bits=2)
    daqakd.calibrate(student, torch.randn(2, 3, 16, 16))
    recipe = {"weight_bits": 2, "act_bits": 2}
    save_model(tmp_path / "student.safetensors", student, "resnet20", dataset, recipe)
    file = read_model_file(tmp_path, "student")
    assert file.channels("mean") == dataset.inputs.mean
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(load_model(file, None, 3)(x), student.eval()(x))


def test_anybodys_checkpoint_is_read(tmp_path):
    model = CIFARResNet(3, 10).eval()
    state = {f"module.{k}": v for k, v in model.state_dict().items()}
    torch.save({"state_dict": state, "best_prec1": 91.0}, tmp_path / "t.th")
    loaded = load_model(read_model_file(tmp_path / "t.th"), "resnet20", 10)
    assert same_weights(loaded, model)


class Surprise:
    """Something weights_only refuses."""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "no such teacher"),
        (lambda p: p.write_bytes(b"nothing"), "not a safetensors file"),
        (lambda p: save_file(SmallNet().state_dict(), p), r"does not fit resnet20.*--model"),
        (lambda p: save_file(CIFARResNet(3, 7).state_dict(), p), r"\(7, 64\), not \(10, 64\)"),
    ],
    ids=["missing", "broken", "architecture", "classes"],
)
def test_wrong_teachers_say_what_is_wrong(tmp_path, make, message):
    path = tmp_path / "t.safetensors"
    make(path)
    with pytest.raises(InputError, match=message):
        load_model(read_model_file(path), "resnet20", 10)


def test_a_pickle_with_code_is_refused(tmp_path):
    torch.save({"state_dict": Surprise()}, tmp_path / "t.pth")
    with pytest.raises(InputError, match=r"cannot be loaded as plain tensors"):
        read_model_file(tmp_path / "t.pth")


def test_a_trained_model_lies_in_memory_as_others_save_it(tmp_path):
    student, teacher = student_and_teacher()
    taught = daqakd.teach(teacher, small_dataset(), config=CONFIG)
    result = daqakd.distill(student, teacher, small_dataset(), strategy="minimal", config=CONFIG)
    for trained in (taught, result):
        save_file(
            trained.model.state_dict(), tmp_path / "a"
        )  # which takes contiguous tensors alone
