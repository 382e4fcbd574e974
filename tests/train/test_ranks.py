"""Two gloo ranks train and rank as one process does; a killed job goes on to the same bits.

The ranks start twice and do all the work in turn, because starting takes longer than the work.
"""

import faulthandler
import os
import signal
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import multiprocessing, nn

import daqakd
from daqakd import InputError, TrainConfig, _ranks
from daqakd._files import read_tensors
from daqakd.losses import CRD
from daqakd.train.loop import Loop
from daqakd.train.part import Part

from ..helpers.small import Colours, SmallNet, small_dataset

RANKS = 2
PLAIN = TrainConfig(epochs=1, batch_size=16, lr=0.01, optimizer="sgd", workers=0)
FULL = replace(PLAIN, epochs=2, optimizer="adam", ema=0.9, accumulate=2, checkpoint_seconds=0.0)
CHECKPOINT = "checkpoint/student.safetensors"
TEACHER = "checkpoint/teacher.safetensors"
STAGES = replace(PLAIN, epochs=3, quantize_from=1, bits_schedule=(4, 3), sync_bn=True)
KILLED_AT = 13  # of 18 steps, in the second epoch
METHODS = ("lsq", "pact")
STRATEGIES = ("minimal", "cutmix")


def net(norm: str) -> SmallNet:
    torch.manual_seed(0)
    model = SmallNet()
    if norm == "group":
        model.add_module("bn1", nn.GroupNorm(2, 8))
    model.unused = nn.Linear(3, 3)
    return model


def distilled(run_dir, config: TrainConfig = PLAIN, norm: str = "batch", method: str = "lsq"):
    student = daqakd.quantize(
        net(norm), weight_bits=3, act_bits=3, method=method, exclude=["unused"]
    )
    options = {"strategy": "trivialaugment+cutmix", "config": config, "run_dir": run_dir}
    return daqakd.distill(student, net(norm), small_dataset(), **options)


def taught(run_dir, epochs: int) -> None:
    """Train without quantizers, so that a sum in another order changes no rounding."""
    config = replace(PLAIN, epochs=epochs, schedule="constant", checkpoint_seconds=0.0)
    daqakd.teach(net("group"), small_dataset(), config=config, run_dir=run_dir)


def lowered(run_dir, epochs: int) -> None:
    """Train a student of 8 bits, where a sum in another order moves few values by little.

    A contrastive loss has banks that follow the images of all ranks, and parameters of its own.
    """
    config = replace(PLAIN, epochs=epochs, lr=1e-3, schedule="constant", checkpoint_seconds=0.0)
    student = daqakd.quantize(net("group"), weight_bits=8, act_bits=8, exclude=["unused"])
    given = {"strategy": "minimal", "config": replace(config, ema=0.9), "run_dir": run_dir}
    given |= {"losses": [(CRD(taps=["fc:input"], dimensions=8, negatives=64), 0.8)]}
    daqakd.distill(student, net("group"), small_dataset(), **given)


class Gradients(Part):
    """Notes the gradients of the first step."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.found: dict[str, torch.Tensor] = {}

    def after_backward(self, step: int) -> None:
        if step == 0:
            named = self.model.named_parameters()
            self.found = {n: p.grad.clone() for n, p in named if p.grad is not None}


def first_gradients(method: str, config: TrainConfig, norm: str = "group"):
    """Return the gradients of the first step, and the state after an epoch."""
    notes: list[Gradients] = []
    prepare = Loop.__post_init__

    def noting(self):
        prepare(self)
        notes.append(Gradients(self.model))
        self.parts = [*self.parts, notes[0]]

    with mock.patch.object(Loop, "__post_init__", noting):
        result = distilled(None, config, norm, method)
    return notes[0].found, result.model.state_dict(), result.history


def all_gradients() -> dict[str, Any]:
    parts = replace(PLAIN, accumulate=2)
    found = {method: first_gradients(method, PLAIN) for method in METHODS}
    found["parts"] = first_gradients("ewgs", parts)
    synchronised = replace(PLAIN, sync_bn=True)
    return found | {"sync": first_gradients("lsq", synchronised, "batch")}


def ranked(run_dir):
    data = small_dataset(count=480, holdout=0.0)
    return daqakd.rank(Colours(), data, strategies=STRATEGIES, run_dir=run_dir)


def killed_at(step: int) -> Any:
    """Return the context in which rank 1 is killed before a step of the run."""
    take = Loop._step

    def step_or_die(self, batch):
        done = self.progress["epoch"] * self.steps + self.progress["step"]
        if done == step and _ranks.own() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        take(self, batch)

    return mock.patch.object(Loop, "_step", step_or_die)


def first_job(folder: Path) -> None:
    torch.save(all_gradients(), folder / f"gradients{_ranks.own()}.pt")
    torch.save(ranked(folder / "ranking").to_json(), folder / f"ranking{_ranks.own()}.pt")
    staged = distilled(None, STAGES, method="ewgs")
    torch.save((staged.model.state_dict(), staged.history), folder / f"stages{_ranks.own()}.pt")
    distilled(folder / "uninterrupted", FULL)
    taught(folder / "changing", 1)
    lowered(folder / "student", 1)
    with killed_at(KILLED_AT):
        distilled(folder / "killed", FULL)


def second_job(folder: Path) -> None:
    distilled(folder / "killed", FULL)
    taught(folder / "changing", 3)
    lowered(folder / "student", 3)
    with pytest.raises(InputError, match="batch_size: 15 images cannot be shared by 2 ranks"):
        distilled(None, replace(PLAIN, batch_size=15))


def work(rank: int, port: int, folder: str, number: int) -> None:
    faulthandler.enable()  # a rank that ends by a signal says where it was
    torch.set_num_threads(1)
    launched = {"RANK": rank, "WORLD_SIZE": RANKS, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in launched.items()}
    job = (first_job, second_job)[number]
    try:
        with _ranks.joined():
            job(Path(folder))
    except InputError as error:
        (Path(folder) / f"error{number}-{rank}.txt").write_text(str(error))
        _ranks.leave(2)
    _ranks.leave(0)


def start(folder: Path, number: int) -> list[int | None]:
    """Run a job; return the ranks' exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    arguments = [(rank, port, str(folder), number) for rank in range(RANKS)]
    processes = [context.Process(target=work, args=own) for own in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    return [process.exitcode for process in processes]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    assert start(folder, 0) == [2, -signal.SIGKILL]
    taught(folder / "changing", 2)
    lowered(folder / "student", 2)
    assert start(folder, 1) == [0, 0]
    return folder


def test_two_ranks_have_the_gradients_of_one(jobs: Path):
    alone = all_gradients()
    seen = [torch.load(jobs / f"gradients{r}.pt", weights_only=False) for r in range(RANKS)]
    for case, (gradients, state, history) in alone.items():
        found, after, rows = seen[0][case]
        assert found.keys() == gradients.keys()
        assert any("quantizer" in name for name in found)
        assert not any("unused" in name for name in found)
        for name, wanted in gradients.items():
            torch.testing.assert_close(
                found[name], wanted, rtol=1e-5, atol=1e-6, msg=f"{case} {name}"
            )
            assert torch.equal(found[name], seen[1][case][0][name]), (case, name)
        for name, wanted in state.items():
            torch.testing.assert_close(after[name], wanted, rtol=1e-3, atol=1e-4)
            assert torch.equal(after[name], seen[1][case][1][name]), (case, name)
        assert rows == seen[1][case][2]
        assert rows[0]["loss"] == pytest.approx(history[0]["loss"], rel=1e-4)
        assert rows[0]["heldout_accuracy"] == pytest.approx(
            history[0]["heldout_accuracy"], abs=0.06
        )


def test_stages_begin_alike_on_two_ranks(jobs: Path):
    one, other = (torch.load(jobs / f"stages{rank}.pt") for rank in range(RANKS))
    assert one[1] == other[1]
    for name, value in one[0].items():
        assert torch.equal(value, other[0][name]), name
    alone = distilled(None, STAGES, method="ewgs")
    for row, wanted in zip(one[1], alone.history, strict=True):
        assert row["loss"] == pytest.approx(wanted["loss"], rel=0.02)


def test_a_killed_rank_ends_the_job_in_one_sentence(jobs: Path):
    text = (jobs / "error0-0.txt").read_text()
    assert text.startswith("rank 0 of 2 lost another rank (")
    assert text.endswith(_ranks.GOES_ON)


def test_a_killed_job_goes_on_to_the_same_bits(jobs: Path):
    files = [jobs / name / CHECKPOINT for name in ("uninterrupted", "killed")]
    (wanted, facts), (found, other_facts) = (read_tensors(file) for file in files)
    assert facts == other_facts
    assert found.keys() == wanted.keys()
    assert any(name.startswith("part.ema.") for name in found)
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name


def test_the_number_of_ranks_may_change_on_the_way(jobs: Path, tmp_path):
    taught(tmp_path, 3)
    wanted, _ = read_tensors(tmp_path / TEACHER)
    found, _ = read_tensors(jobs / "changing" / TEACHER)
    for name, value in wanted.items():
        if name.startswith(("model.", "optimizer.")):
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_a_student_s_ranks_may_change_on_the_way(jobs: Path, tmp_path):
    lowered(tmp_path, 3)
    wanted, _ = read_tensors(tmp_path / CHECKPOINT)
    found, _ = read_tensors(jobs / "student" / CHECKPOINT)
    kinds = ("model.", "optimizer.", "part.ema.", "part.losses.modules.")
    named = [n for n in wanted if n.startswith(kinds)]
    assert any("quantizer" in name for name in named)
    assert any("student_bank" in name for name in named)
    for name in named:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-3, atol=1e-3, msg=name)


def test_two_ranks_rank_as_one(jobs: Path, tmp_path):
    alone = ranked(tmp_path).to_json()
    seen = [torch.load(jobs / f"ranking{r}.pt", weights_only=False) for r in range(RANKS)]
    for row, other, own in zip(
        seen[0]["strategies"], seen[1]["strategies"], alone["strategies"], strict=True
    ):
        for key, value in own.items():
            if key == "seconds":
                continue
            assert row[key] == other[key]
            assert row[key] == (
                pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
            )
