"""Compositions by name, and the search among them."""

import json
from collections import Counter
from itertools import pairwise

import pytest
import torch

import daqakd
from daqakd import InputError
from daqakd.augment import get_strategy
from daqakd.augment.compositions import (
    MAX_MAGNITUDE,
    NAMES,
    WITHOUT_MAGNITUDE,
    describe,
    parse,
    random_compositions,
)
from daqakd.augment.plan import Planner, normalised_values
from daqakd.augment.policies import policy
from daqakd.augment.ranges import TRIVIALAUGMENT
from daqakd.augment.settings import ImageContext, make_setting, stack_settings
from daqakd.cli.main import main
from daqakd.functional import augment
from daqakd.ranking.accumulator import Accumulator
from daqakd.ranking.checkpoint import Checkpoint
from daqakd.ranking.halving import rungs

from ..helpers.pictures import adversarial
from ..helpers.plans import plan_of
from ..helpers.small import SmallNet, small_dataset, write_images


def test_a_composition_is_its_operations_in_their_order():
    """Against the operations applied one by one at magnitudes computed here, either sign."""
    images = adversarial(32)
    count, on = len(images), ImageContext(32, 32)
    planner = Planner(
        policy("rotate@12+color@20", 32, 32),
        height=32,
        width=32,
        pad=0,
        flip=False,
        erasing=False,
        mixing=None,
        box="image",
        values=normalised_values((0.0,) * 3, (1.0,) * 3),
        seed=0,
    )
    plan = planner.plan(0, torch.arange(count))
    made = (augment(images, plan) * 255).round().to(torch.uint8)
    met = Counter()
    for image, pixels in zip(images, made, strict=True):
        fits = set()
        for turn, colour in ((a, b) for a in (1, -1) for b in (1, -1)):
            chain = image[None]
            for one in (
                make_setting("Rotate", turn * 12 * 4.5, on),
                make_setting("Color", colour * 20 * 0.033, on),
            ):
                setting = torch.ones(1, 1, 1, dtype=torch.int16)
                again = plan_of(stack_settings([one]), setting, torch.arange(1), None)
                chain = augment(chain, again, dtype=torch.uint8)
            if torch.equal(chain[0], pixels):
                fits.add((turn, colour))
        assert fits
        met.update(fits if len(fits) == 1 else [])
    assert len(met) >= 3, "signs are drawn per image, for each operation on its own"


def test_every_operation_and_magnitude_has_a_name():
    for name, own in NAMES.items():
        text = name if name in WITHOUT_MAGNITUDE else f"{name}@{MAX_MAGNITUDE}"
        assert get_strategy(text).policy == text
        assert parse(text) == [(own, 0 if name in WITHOUT_MAGNITUDE else MAX_MAGNITUDE)]
        assert (len(TRIVIALAUGMENT.magnitudes(own, ImageContext(32, 32))) == 1) == (
            name in WITHOUT_MAGNITUDE
        )
    assert get_strategy("rotate@12+color@20+cutmix").mixing == "cutmix"
    turn, plain = describe("rotate@12+equalize", 32, 32)
    assert turn == {"operation": "rotate", "magnitude": 12, "value": pytest.approx(54.0)}
    assert plain == {"operation": "equalize", "magnitude": None, "value": None}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rotat@12", "unknown operation 'rotat'.*Did you mean 'rotate'"),
        ("rotate@12+colour@2", "unknown operation 'colour'.*Did you mean 'color'"),
        ("rotate", "needs a magnitude of 0 to 30"),
        ("rotate@31", "0 to 30.*got 'rotate@31'"),
        ("rotate@-1", "0 to 30.*got 'rotate@-1'"),
        ("rotate@1.5", "0 to 30"),
        ("equalize@3", "equalize has no magnitude"),
        ("rotate@1+", "unknown operation ''"),
        ("rotate@1+rotate@2+rotate@3+rotate@4", "at most 3 operations, got 4"),
        ("trivalaugment+cutmix", "Did you mean"),
    ],
)
def test_wrong_names_say_what_to_do(name, message):
    with pytest.raises(InputError, match=message):
        get_strategy(name)


def test_a_registered_name_cannot_read_as_a_magnitude():
    with pytest.raises(InputError, match="'@' for magnitudes"):
        daqakd.register_strategy("rotate@3", lambda image: image)


def test_drawn_compositions_differ_and_depend_on_the_seed_alone():
    names = random_compositions(400, 3)
    assert len(set(names)) == 400
    assert random_compositions(100, 3) == names[:100]
    assert random_compositions(100, 4) != names[:100]
    pairs = [parse(name) for name in names]
    assert all(len(pair) == 2 for pair in pairs)
    assert {name for pair in pairs for name, _ in pair} == set(NAMES.values())
    used = {m for pair in pairs for name, m in pair if name.lower() not in WITHOUT_MAGNITUDE}
    assert used == set(range(1, MAX_MAGNITUDE + 1)), "0 would do nothing"


def test_rungs_double_where_the_images_allow_it():
    assert rungs(4, 200, 50000) == [50000]
    assert rungs(20, 200, 50000) == [6250, 12500, 25000, 50000]
    assert rungs(100, 400, 800)[0] == 400
    assert rungs(100, 400, 400) == [400]
    for count in (5, 17, 500):
        steps = rungs(count, 200, 50000)
        assert steps == sorted(set(steps))
        assert (steps[0] >= 200, steps[-1]) == (True, 50000)
        assert all(b <= 2.01 * a for a, b in pairwise(steps))


@pytest.fixture(scope="module")
def taught():
    dataset = small_dataset(480)
    torch.manual_seed(0)
    config = daqakd.TrainConfig(epochs=4, batch_size=32, lr=0.01, workers=0)
    return daqakd.teach(SmallNet(), dataset, config=config).model, dataset


def plain(found: daqakd.Search) -> tuple:
    rows = [{k: v for k, v in r.items() if k != "seconds"} for r in found.ranking.records()]
    return found.trials, found.rungs, rows


def test_search_halves_and_its_finalists_rank_as_rank_does(taught):
    found = daqakd.search(*taught, compositions=9, seed=5)
    assert [r["compositions"] for r in found.rungs] == [9, 5, 3]
    assert [r["images"] for r in found.rungs] == [120, 240, 480]
    assert sorted(t["name"] for t in found.trials) == sorted(random_compositions(9, 5))
    for number, step in enumerate(found.rungs, 1):
        own = [t for t in found.trials if t["rung"] == number]
        assert {t["images"] for t in own} == {step["images"]}
    finalists = [r.name for r in found.ranking.results]
    whole = daqakd.rank(*taught, strategies=finalists, seed=5)
    assert [r.name for r in whole.results] == finalists
    assert [r.measures for r in whole.results] == [r.measures for r in found.ranking.results]
    first = daqakd.rank(*taught, strategies=random_compositions(9, 5), seed=5, budget=1e-9)
    assert first.num_images == 60


def test_the_better_half_stays(taught):
    """Each rung's leavers are worse, on its images, than who stays: ranked here without halving."""
    found = daqakd.search(*taught, compositions=6, images=240, seed=1)
    leavers = [t["name"] for t in found.trials if t["rung"] == 1]
    tallies = {}
    add = Accumulator.add

    def watched(self, batch):
        add(self, batch)
        if self.job.images_in(self.done) == 120:
            tallies[self.name] = self.state.score()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Accumulator, "add", watched)
        daqakd.search(*taught, compositions=6, images=240, seed=1)
    by_score = sorted(tallies, key=tallies.__getitem__)
    assert sorted(by_score[3:]) == sorted(leavers)


def test_a_killed_search_continues_to_the_same_end(taught, tmp_path, monkeypatch):
    whole = daqakd.search(*taught, compositions=9, seed=2)
    save, saves = Checkpoint.save, []

    def fatal(self, accumulator):
        saves.append(accumulator.name)
        if len(saves) == 11:
            raise KeyboardInterrupt
        save(self, accumulator)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", fatal)
        with pytest.raises(KeyboardInterrupt):
            daqakd.search(*taught, compositions=9, seed=2, run_dir=tmp_path)
    seen, add = [], Accumulator.add
    monkeypatch.setattr(Accumulator, "add", lambda self, b: seen.append(self.name) or add(self, b))
    again = daqakd.search(*taught, compositions=9, seed=2, run_dir=tmp_path)
    assert plain(again) == plain(whole)
    assert 0 < len(set(seen)) < 9, "what was saved is not done again"
    seen.clear()
    assert plain(daqakd.search(*taught, compositions=9, seed=2, run_dir=tmp_path)) == plain(whole)
    assert seen == []


@pytest.mark.parametrize("count", [-1, 0, 1, 10001])
def test_too_few_or_too_many_compositions(taught, count):
    with pytest.raises(InputError, match=f"compositions: expected 2 to 10000, got {count}"):
        daqakd.search(*taught, compositions=count)


def test_search_and_train_as_verbs(tmp_path, capsys):
    """The winner is a strategy that trains; the same command gives the same result."""
    tree, teacher = str(write_images(tmp_path / "tree")), str(tmp_path / "teacher")
    fast = ["--epochs", "4", "--batch-size", "32"]
    assert main(["teach", tree, "--out", teacher, *fast]) == 0
    records = []
    for name in ("a", "b"):
        out = tmp_path / name
        asked = [tree, "--teacher", teacher, "--out", str(out), "--compositions", "6"]
        assert main(["search", *asked, "--teacher-dtype", "bfloat16"]) == 0
        records.append(json.loads((out / "search.json").read_text()))
        assert (out / "ranking.csv").exists()
    assert records[0] == records[1]
    best = records[0]["best"]
    assert f"--strategy {best}" in capsys.readouterr().out
    assert json.loads((tmp_path / "a/ranking.json").read_text())["best"] == best
    run = [tree, "--teacher", teacher, "--out", str(tmp_path / "c"), "--strategy", best]
    assert main(["train", *run, "--epochs", "1", "--batch-size", "32"]) == 0
    wrong = ["--compositions", "1", "--out", str(tmp_path / "d")]
    assert main(["search", tree, "--teacher", teacher, *wrong]) == 2
    assert not (tmp_path / "d").exists(), "a corrected command may use the directory"
    assert "compositions: expected 2" in capsys.readouterr().err


def test_rank_until_sure_as_a_verb(tmp_path, capsys):
    tree, teacher = str(write_images(tmp_path / "tree", train=480)), str(tmp_path / "teacher")
    assert main(["teach", tree, "--out", teacher, "--epochs", "2", "--batch-size", "32"]) == 0
    asked = ["rank", tree, "--teacher", teacher, "--strategies", "minimal", "cutmix"]
    out = tmp_path / "a"
    assert main([*asked, "--until-sure", "--budget", "600", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    saved = json.loads((out / "ranking.json").read_text())
    assert saved["stopped"] in shown
    assert saved["sure"] == (saved["tied"] == [])
    again = [*asked, "--until-sure", "--budget", "900", "--out", str(out)]
    assert main(again) == 0, "another budget continues the run"
    assert main([*asked, "--budget", "-1", "--out", str(tmp_path / "b")]) == 2
    assert "budget: expected more than 0 seconds" in capsys.readouterr().err
