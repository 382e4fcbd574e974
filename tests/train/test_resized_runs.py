"""Rankings, searches and trainings on random-resized-crops, and the commands that ask for them."""

import json
from dataclasses import replace
from itertools import chain

import pytest
import torch
from safetensors.torch import save_file

import daqakd
from daqakd import InputError, InputSpec, ResizedCrop, TrainConfig
from daqakd.cli.main import main
from daqakd.data.dataset import Dataset, Images, make
from daqakd.ranking import RankConfig, halving, job, rounds
from daqakd.ranking.accumulator import Accumulator
from daqakd.ranking.confidence import two_sided
from daqakd.ranking.job import make_job
from daqakd.train import Result, loop
from daqakd.train.checkpoint import read_progress
from daqakd.train.loop import Loop
from daqakd.train.options_file import keep_options
from daqakd.train.store import read_model_file, save_model
from daqakd.train.trainer import _stream

from ..helpers.small import SmallNet, small_dataset

CROP = ResizedCrop(24, scale=(0.3, 1.0), jitter=(0.3, 0.3, 0.3, 0.05))
OTHER = replace(CROP, jitter=None)
CONFIG = TrainConfig(epochs=2, batch_size=16, lr=0.01, workers=0)
INPUTS = InputSpec((0.4,) * 3, (0.25,) * 3, CROP)
SURE = two_sided(1e-3)  # t of a difference that chance does not make


@pytest.fixture(scope="module")
def taught():
    dataset = small_dataset(600)
    torch.manual_seed(0)
    config = replace(CONFIG, epochs=3, batch_size=32)
    return daqakd.teach(
        SmallNet(), dataset.with_inputs(pipeline=CROP), config=config
    ).model, dataset


class Colour(torch.nn.Module):
    """Tells classes by the mean colour, less surely the smaller the spot in the crop is."""

    def forward(self, x):
        return 6 * x.mean((2, 3))


def spots(count: int = 900) -> Dataset:
    """Images with a spot of the class' colour off the middle."""
    labels = torch.arange(count) % 3
    pixels = torch.full((count, 3, 16, 16), 90)
    pixels[torch.arange(count), labels, 5:12, 4:11] = 200
    images = Images((pixels + torch.randint(0, 40, pixels.shape)).byte(), labels)
    inputs = InputSpec((0.4,) * 3, (0.25,) * 3)
    return make("spots", ["r", "g", "b"], images, images, inputs=inputs, holdout=0.0, seed=0)


def test_a_ranking_agrees_with_torchvision_s_own_transforms():
    """Batched here; there image by image with PIL, by torchvision's own pipeline and strategy."""
    from torchvision.transforms import TrivialAugmentWide

    pipeline, dataset = ResizedCrop(24, (0.5, 1.0), jitter=(0.4, 0.4, 0.4, 0.15)), spots()

    def ranked(name, crops=pipeline):
        return daqakd.rank(Colour(), dataset, strategies=[name], pipeline=crops, workers=0)

    def differ(one, other) -> bool:
        low, high = one.criterion.lead(one.results[0], other.results[0], SURE)
        return not low <= 0 <= high

    daqakd.register_strategy("theirs-minimal", lambda image: image)
    daqakd.register_strategy("theirs-trivialaugment", TrivialAugmentWide())
    theirs, trivial = ranked("theirs-minimal"), ranked("theirs-trivialaugment")
    assert not differ(theirs, ranked("minimal"))
    assert not differ(trivial, ranked("trivialaugment"))
    assert differ(trivial, ranked("minimal"))
    for other in (None, replace(pipeline, scale=(0.08, 0.5)), replace(pipeline, jitter=None)):
        assert differ(theirs, ranked("minimal", other)), other


def by_image(batches) -> dict[int, bytes]:
    return {
        int(i): image.contiguous().numpy().tobytes()
        for batch in batches
        for i, image in zip(batch.index, batch.images, strict=True)
    }


@pytest.mark.parametrize("name", ["minimal", "trivialaugment", "augmix"])
@pytest.mark.parametrize("semantics", ["pil", "torchvision"])
def test_ranking_and_training_make_the_same_images_in_any_batches(name, semantics):
    dataset = small_dataset(60, holdout=0.0).with_inputs(pipeline=CROP, semantics=semantics)
    work = make_job(SmallNet(), dataset, RankConfig(seed=3))
    ranked = by_image(work.stream(name).batches(0, [index for _, index in work.steps]))
    assert len(ranked) == 60
    for size in (7, 60):
        config = replace(CONFIG, seed=3, batch_size=size)
        trained = by_image(_stream(dataset, name, config, torch.device("cpu")).epoch(0, size))
        assert len(trained) == 60 // size * size
        assert trained.items() <= ranked.items()
    assert work.sides == (24, 24)


class Killed(Exception):
    pass


def killing(patch, owner, name: str, after: int) -> None:
    """Make the call after ``after`` of a method the end."""
    calls, real = iter(range(after)), getattr(owner, name)

    def fatal(self, *given):
        if next(calls, None) is None:
            raise Killed
        return real(self, *given)

    patch.setattr(owner, name, fatal)


def plain(ranking: daqakd.Ranking) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in ranking.records()]


def test_a_killed_ranking_continues_to_the_same_numbers(taught, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "BATCH", 100)
    monkeypatch.setattr(rounds, "SAVE_SECONDS", 0.0)
    options = {"strategies": ["minimal", "cutmix"], "pipeline": CROP}
    whole = daqakd.rank(*taught, **options)
    with monkeypatch.context() as patch:
        killing(patch, Accumulator, "add", 7)
        with pytest.raises(Killed):
            daqakd.rank(*taught, run_dir=tmp_path, **options)
    done = []
    add = Accumulator.add
    monkeypatch.setattr(Accumulator, "add", lambda self, b: done.append(self.name) or add(self, b))
    assert plain(daqakd.rank(*taught, run_dir=tmp_path, **options)) == plain(whole)
    assert 0 < len(done) < 12, "what was saved is not counted again"


def test_another_pipeline_counts_anew(taught, tmp_path, monkeypatch):
    seen, add = [], Accumulator.add
    monkeypatch.setattr(Accumulator, "add", lambda self, b: seen.append(self.name) or add(self, b))

    def again(**views) -> bool:
        seen.clear()
        daqakd.rank(*taught, strategies=["minimal"], images=60, run_dir=tmp_path, **views)
        return bool(seen)

    assert again(pipeline=CROP)
    assert not again(pipeline=CROP)
    assert not again(pipeline=ResizedCrop(24, [0.3, 1], jitter=[0.3, 0.3, 0.3, 0.05])), "equal"
    changes = [{"size": 25}, {"scale": (0.2, 1.0)}, {"ratio": (0.5, 2.0)}, {"jitter": None}]
    assert all(again(pipeline=replace(CROP, **change)) for change in changes)
    assert again(pipeline=CROP, semantics="torchvision")
    assert again()


def distilled(
    config: TrainConfig, run_dir=None, strategy="trivialaugment", inputs: InputSpec = INPUTS
) -> Result:
    torch.manual_seed(0)
    teacher = SmallNet()
    student = daqakd.quantize(teacher, weight_bits=3, act_bits=3)
    options = {"strategy": strategy, "config": config, "run_dir": run_dir}
    dataset = replace(small_dataset(), inputs=inputs)
    return daqakd.distill(student, teacher, dataset, **options)


def weights(result: Result) -> bytes:
    return b"".join(v.numpy().tobytes() for v in result.model.state_dict().values())


@pytest.mark.parametrize("strategy", ["trivialaugment", "cutmix"])
@pytest.mark.parametrize("step", [1, 12])
def test_a_killed_training_ends_like_an_uninterrupted_one(tmp_path, monkeypatch, step, strategy):
    whole = distilled(CONFIG, strategy=strategy)
    with monkeypatch.context() as patch:
        killing(patch, Loop, "_step", step)
        with pytest.raises(Killed):
            distilled(replace(CONFIG, checkpoint_seconds=0.0), tmp_path, strategy)
    again = distilled(CONFIG, tmp_path, strategy)
    assert weights(again) == weights(whole)
    assert again.history == whole.history


def test_training_with_another_pipeline_does_not_continue(tmp_path):
    first = replace(CONFIG, epochs=1)
    distilled(first, tmp_path)
    path = tmp_path / "checkpoint/student.safetensors"
    kept = path.read_bytes()
    for change in ({"pipeline": OTHER}, {"pipeline": None}, {"semantics": "torchvision"}):
        with pytest.raises(InputError, match=r"run on images from ResizedCrop\(size=24.*\(pil\), "):
            distilled(CONFIG, tmp_path, inputs=INPUTS.with_changes(**change))
    assert path.read_bytes() == kept
    assert len(distilled(CONFIG, tmp_path).history) == 2


def test_a_checkpoint_that_does_not_tell_its_images_is_of_padded_crops(tmp_path, monkeypatch):
    padded = INPUTS.with_changes(pipeline=None)
    distilled(replace(CONFIG, epochs=1), tmp_path, inputs=padded)
    told = read_progress(tmp_path / "checkpoint/student.safetensors")
    assert told["images"] == "padded crops (pil)"
    untold = {k: v for k, v in told.items() if k != "images"}
    monkeypatch.setattr(loop, "read_progress", lambda path: untold)
    with pytest.raises(InputError, match="padded crops"):
        distilled(CONFIG, tmp_path)
    assert len(distilled(CONFIG, tmp_path, inputs=padded).history) == 2


def test_a_search_names_magnitudes_at_the_network_s_size(taught, tmp_path, monkeypatch):
    sides = set()
    monkeypatch.setattr(halving, "describe", lambda name, *size: sides.add(size))
    options = {"compositions": 5, "images": 240, "pipeline": CROP, "semantics": "torchvision"}
    found = daqakd.search(*taught, **options)
    assert sides == {(24, 24)}
    finalists = [r.name for r in found.ranking.results]
    views = {"pipeline": CROP, "semantics": "torchvision"}
    ranked = daqakd.rank(*taught, strategies=finalists, images=240, **views)
    by_name = {r.name: r.measures for r in ranked.results}
    assert {r.name: r.measures for r in found.ranking.results} == by_name
    found.save(tmp_path)
    saved = json.loads((tmp_path / "ranking.json").read_text())
    assert ResizedCrop(**saved["pipeline"]) == CROP
    assert saved["semantics"] == "torchvision"


def test_a_model_file_carries_its_pipeline(tmp_path):
    path = tmp_path / "teacher.safetensors"
    dataset = small_dataset().with_inputs(pipeline=CROP, semantics="torchvision")
    save_model(path, SmallNet(), "x", dataset)
    file = read_model_file(path)
    assert (file.pipeline, file.inputs["semantics"]) == (CROP, "torchvision")
    for damage in ("{", '{"sides": 3}', '{"size": 0}', "3"):
        save_file({"a": torch.zeros(1)}, path, {"pipeline": damage})
        with pytest.raises(InputError, match=r"its pipeline cannot be read.*file again"):
            _ = read_model_file(path).pipeline


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ({"pipeline": 224}, r"pipeline: expected a daqakd.ResizedCrop or None, got int"),
        ({"semantics": "pill"}, "unknown semantics 'pill'.*Did you mean 'pil'"),
    ],
    ids=["pipeline", "semantics"],
)
def test_wrong_pipelines_are_named_by_all(taught, views, message):
    with pytest.raises(InputError, match=message):
        daqakd.rank(*taught, **views)
    with pytest.raises(InputError, match=message):
        daqakd.search(*taught, **views)
    with pytest.raises(InputError, match=message):
        distilled(CONFIG, inputs=INPUTS.with_changes(**views))


def test_a_run_begun_before_an_option_existed_continues_with_its_default(tmp_path):
    path, old = tmp_path / "config.toml", {"data": "digits", "epochs": 3}
    keep_options(path, "train", old)
    defaults = {"semantics": "pil", "epochs": 30, "crop": None}
    keep_options(path, "train", {**old, "semantics": "pil"}, defaults)
    for change in ({"semantics": "torchvision"}, {"semantics": "pil", "epochs": 30}):
        with pytest.raises(InputError, match="another configuration"):
            keep_options(path, "train", {**old, **change}, defaults)


CROPS: tuple[str, ...] = ("--crop", "resized", "--input-size", "16", "--crop-scale", "0.5", "1")
CROPS += ("--jitter", "0.2", "0.2", "0.2", "0")
FAST = ("--teacher-epochs", "2", "--epochs", "1", "--batch-size", "64", "--images", "400")
NAMES = ("--strategies", "minimal", "cutmix")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole run on digits, seen at 16 x 16."""
    out = tmp_path_factory.mktemp("runs") / "resized"
    assert main(["run", "digits", "--out", str(out), *CROPS, *FAST, *NAMES]) == 0
    return out


def test_run_on_resized_crops(finished, capsys):
    shares = json.loads((finished / "eval.json").read_text())
    assert shares["teacher_accuracy"] > 0.8
    assert shares["student_accuracy"] > 0.5
    ranking = json.loads((finished / "ranking.json").read_text())
    pipeline = ResizedCrop(16, (0.5, 1.0), jitter=(0.2, 0.2, 0.2, 0.0))
    assert ResizedCrop(**ranking["pipeline"]) == pipeline
    assert "resized crops of 16 x 16" in (finished / "report.html").read_text()
    for role in ("teacher", "student", "student.packed"):
        assert read_model_file(finished, role).pipeline == pipeline
    for role in ("teacher", "student"):
        place = read_progress(finished / f"checkpoint/{role}.safetensors")
        assert place["images"] == f"{pipeline} (pil)", "what it was trained on"
    for asked in ([str(finished)], [str(finished), "--packed"]):
        assert main(["eval", *asked]) == 0
        assert f"{shares['student_accuracy']:.2%}" in capsys.readouterr().out


def test_a_teacher_s_pipeline_needs_not_be_repeated(finished, tmp_path, capsys):
    teacher = ["digits", "--teacher", str(finished)]
    share = json.loads((finished / "eval.json").read_text())["teacher_accuracy"]
    assert main(["eval", *teacher]) == 0
    assert f"{share:.2%}" in capsys.readouterr().out
    assert main(["eval", *teacher, "--input-size", "8"]) == 0
    assert f"{share:.2%}" not in capsys.readouterr().out
    asked = ["--images", "400", *NAMES]
    assert main(["rank", *teacher, "--out", str(tmp_path / "a"), *asked]) == 0
    rows = [
        json.loads((folder / "ranking.json").read_text())["strategies"]
        for folder in (finished, tmp_path / "a")
    ]
    for row in chain(*rows):
        del row["seconds"]
    assert rows[0] == rows[1]
    assert main(["rank", *teacher, "--out", str(tmp_path / "b"), *asked, "--crop", "pad"]) == 0
    assert json.loads((tmp_path / "b/ranking.json").read_text())["pipeline"] is None
    search = ["--compositions", "2", "--images", "200", "--input-size", "12"]
    assert main(["search", *teacher, "--out", str(tmp_path / "c"), *search]) == 0
    assert json.loads((tmp_path / "c/ranking.json").read_text())["pipeline"]["size"] == 12


def test_other_crops_do_not_continue_a_run(finished, capsys):
    files = [p for p in finished.rglob("*") if p.is_file() and p.suffix != ".html"]
    before = {p: p.read_bytes() for p in files}
    again = ["run", "digits", "--out", str(finished), *FAST, *NAMES]
    for crops in ((), (*CROPS[:2], *CROPS[4:]), (*CROPS, "--semantics", "torchvision")):
        assert main([*again, *crops]) == 2
        assert "holds a run run of another configuration" in capsys.readouterr().err
    assert main([*again, *CROPS]) == 0
    assert {p: p.read_bytes() for p in before} == before
