"""A checkpoint belongs to its data, teacher and options; what continues ends in the same bits."""

import json
from dataclasses import replace

import pytest
import torch

import daqakd
from daqakd import InputError, TrainConfig
from daqakd._files import read_tensors, write_tensors
from daqakd.data import Images
from daqakd.train.identity import check_finished

from ..helpers.killed import killed_at
from ..helpers.small import SmallNet, small_dataset

CONFIG = TrainConfig(epochs=2, batch_size=16, lr=0.01, workers=0)
CHECKPOINT = "checkpoint/student.safetensors"


def teacher(seed: int = 0) -> SmallNet:
    torch.manual_seed(seed)
    return SmallNet()


def distilled(
    run_dir, dataset=None, config=CONFIG, model=None, strategy="trivialaugment", method="lsq"
):
    student = daqakd.quantize(teacher(), weight_bits=3, act_bits=3, method=method)
    data = small_dataset() if dataset is None else dataset
    options = {"strategy": strategy, "config": config, "run_dir": run_dir}
    return daqakd.distill(student, model or teacher(), data, **options)


def taught(run_dir, dataset=None, config=CONFIG):
    return daqakd.teach(teacher(), dataset or small_dataset(), config=config, run_dir=run_dir)


def cut_short(run, config) -> None:
    """Run until the second epoch's steps are done, with a checkpoint after each of them."""
    with killed_at(2, "_finish_epoch"):
        run(replace(config, checkpoint_seconds=0.0))


def with_pixel(dataset):
    pixels = dataset.train.pixels.clone()
    pixels[3, 0, 0, 0] ^= 1
    return replace(dataset, train=Images(pixels, dataset.train.labels))


def with_labels(dataset):
    labels = dataset.train.labels.clone()
    labels[[0, 1]] = labels[[1, 0]]
    return replace(dataset, train=Images(dataset.train.pixels, labels))


def with_names(dataset):
    return replace(dataset, classes=("class0", "class1", "zebra"))


def with_split(dataset):
    heldout = dataset.heldout.clone()
    heldout[0], fit = dataset.fit[0], dataset.fit.clone()
    fit[0] = dataset.heldout[0]
    return replace(dataset, fit=fit, heldout=heldout)


DATA = {
    "pixel": (with_pixel, "pixels, labels or the held-out split differ"),
    "labels": (with_labels, "pixels, labels or the held-out split differ"),
    "split": (with_split, "pixels, labels or the held-out split differ"),
    "names": (with_names, r"classes \(class0, class1, class2 there, class0, class1, zebra here\)"),
    "fewer": (lambda _: small_dataset(179), r"training images \(144 there, 143 here\)"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A student's and a teacher's run after their first epoch."""
    folder = tmp_path_factory.mktemp("run")
    distilled(folder, config=replace(CONFIG, epochs=1))
    taught(folder, config=replace(CONFIG, epochs=1))
    return folder


@pytest.mark.parametrize("resume", [distilled, taught])
@pytest.mark.parametrize(("change", "message"), DATA.values(), ids=DATA)
def test_other_data_does_not_continue(run, resume, change, message):
    before = (run / CHECKPOINT).read_bytes()
    with pytest.raises(InputError, match=f"run on another data set: {message}.*Use another run"):
        resume(run, change(small_dataset()))
    assert (run / CHECKPOINT).read_bytes() == before


def test_another_teacher_does_not_continue(run):
    with pytest.raises(InputError, match="with another teacher: its weights differ"):
        distilled(run, model=teacher(seed=1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.02}, r"lr \(0.01 there, 0.02 here\)"),
        ({"seed": 1}, r"seed \(0 there, 1 here\)"),
        ({"optimizer": "sgd", "kd_weight": 1.0}, r"optimizer \(adam there, sgd .*, kd_weight"),
    ],
)
def test_other_options_do_not_continue(run, change, message):
    with pytest.raises(InputError, match=f"with other options: {message}"):
        distilled(run, config=replace(CONFIG, **change))


def test_another_strategy_does_not_continue(run):
    with pytest.raises(InputError, match=r"strategy \(trivialaugment there, cutmix here\)"):
        distilled(run, strategy="cutmix")


def test_a_checkpoint_of_another_model_says_so(run):
    wrapped = torch.nn.Sequential(SmallNet())
    with pytest.raises(InputError, match="do not fit this model"):
        daqakd.teach(wrapped, small_dataset(), config=CONFIG, run_dir=run)


def test_an_older_checkpoint_continues(tmp_path):
    whole = distilled(tmp_path / "whole")
    cut_short(lambda config: distilled(tmp_path / "old", config=config), CONFIG)
    path = tmp_path / "old" / CHECKPOINT
    tensors, facts = read_tensors(path)
    place = json.loads(facts["place"])
    kept = {k: place[k] for k in ("epoch", "step", "history", "images")}
    write_tensors(path, tensors, {"place": json.dumps(kept)})
    again = distilled(tmp_path / "old")
    assert again.history == whole.history
    with pytest.raises(InputError, match="another data set"):  # it tells now what it belongs to
        distilled(tmp_path / "old", with_pixel(small_dataset()))


def rewritten(path, change) -> int:
    """Write a checkpoint again with ``change`` applied to its tensors; return how many it met."""
    tensors, facts = read_tensors(path)
    changed = {key: change(key, value) for key, value in tensors.items()}
    write_tensors(path, changed, facts)
    return sum(changed[key] is not tensors[key] for key in tensors)


def without_dimension(key: str, value: torch.Tensor) -> torch.Tensor:
    """Return what versions wrote whose steps, alphas and ranges had no dimension."""
    return value.reshape(()) if value.shape == (1,) and not key.startswith("part.") else value


def each_state():
    """Every method, its number of parameters, with every optimizer; these take turns."""
    for i, (method, parameters) in enumerate({"lsq": 6, "pact": 3, "ewgs": 15}.items()):
        for j, optimizer in enumerate(("adam", "sgd")):
            marks = pytest.mark.slow if (i + j) % 2 else ()
            yield pytest.param(method, parameters, optimizer, marks=marks)


@pytest.mark.parametrize(("method", "parameters", "optimizer"), list(each_state()))
def test_a_checkpoint_of_steps_without_a_dimension_continues(
    tmp_path, method, parameters, optimizer
):
    config = replace(CONFIG, optimizer=optimizer, epochs=3)

    def run(folder, config=config):
        return distilled(tmp_path / folder, config=config, method=method)

    whole = run("whole")
    cut_short(lambda config: run("old", config), config)
    path = tmp_path / "old" / CHECKPOINT
    states = {"adam": 2, "sgd": 1}[optimizer]
    assert rewritten(path, without_dimension) == parameters * (1 + states)
    again = run("old")
    assert again.history == whole.history
    pairs = zip(again.model.state_dict().values(), whole.model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_an_optimizer_state_of_another_parameter_is_refused(tmp_path):
    cut_short(lambda config: distilled(tmp_path, config=config), CONFIG)

    def exchanged(key: str, value: torch.Tensor) -> torch.Tensor:
        return value.flatten() if key == "optimizer.0.exp_avg" else value

    assert rewritten(tmp_path / CHECKPOINT, exchanged) == 1
    with pytest.raises(InputError, match="its tensors do not fit this model"):
        distilled(tmp_path)


@pytest.mark.parametrize("resume", [distilled, taught])
@pytest.mark.parametrize("warmup", [0, 12])
def test_a_kill_between_the_last_step_and_the_end_of_an_epoch(tmp_path, resume, warmup):
    config = replace(CONFIG, warmup_steps=warmup)
    whole = resume(tmp_path / "whole", config=config)
    cut_short(lambda config: resume(tmp_path / "cut", config=config), config)
    again = resume(tmp_path / "cut", config=config)
    assert again.history == whole.history
    (name,) = [p.name for p in (tmp_path / "cut").glob("*.csv")]
    files = [tmp_path / folder / name for folder in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_finished_model_of_other_data_is_not_taken(run):
    check_finished(run / "student.safetensors", "student", small_dataset(), teacher())
    check_finished(run / "teacher.safetensors", "teacher", small_dataset())
    with pytest.raises(InputError, match=r"student\.safetensors: .*another data set"):
        check_finished(
            run / "student.safetensors", "student", with_pixel(small_dataset()), teacher()
        )
    with pytest.raises(InputError, match=r"student\.safetensors: .*another teacher"):
        check_finished(run / "student.safetensors", "student", small_dataset(), teacher(seed=1))
    with pytest.raises(InputError, match=r"teacher\.safetensors: .*another data set"):
        check_finished(run / "teacher.safetensors", "teacher", with_names(small_dataset()))
    check_finished(run / "elsewhere/student.safetensors", "student", small_dataset(), teacher())
