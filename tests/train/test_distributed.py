"""Two gloo ranks: calibration gives every rank the same result, CMI states merge bit for bit.

The ranks start once and do all the work in turn, because starting takes longer than the work.
"""

import gc
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

import daqakd
from daqakd import CMIState

from ..helpers.small import SmallNet

RANKS = 2


def calibrated(images: torch.Tensor) -> torch.nn.Module:
    torch.manual_seed(0)
    student = daqakd.quantize(SmallNet(), weight_bits=3, act_bits=3, method="pact")
    return daqakd.calibrate(student, images)


def images(rank: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rank)
    x = torch.rand(8, 3, 16, 16, generator=generator)
    return x - 0.1 if rank else x  # only rank 1 sees negative inputs


def calibrate_on_rank(rank: int, folder: Path) -> None:
    torch.save(calibrated(images(rank)).state_dict(), folder / f"calibrated{rank}.pt")


def rows(count: int = 101) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = 4 * torch.randn(count, 5, generator=generator)
    return logits, torch.arange(count) % 5, torch.rand(count, 5, generator=generator).softmax(1)


def reduce_on_rank(rank: int, folder: Path) -> None:
    logits, hard, soft = rows()
    for name, labels in (("hard", hard), ("soft", soft)):
        state = CMIState(5)
        state.update(logits[rank::RANKS], labels[rank::RANKS])
        state.all_reduce()
        torch.save((state.sums, state.cmi(), state.pac()), folder / f"{name}{rank}.pt")


def gradients(student: torch.nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor | None]:
    student.train()(x).square().mean().backward()
    return {n.removeprefix("module."): p.grad for n, p in student.named_parameters()}


def small_student() -> torch.nn.Module:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(784, 3)
    )
    student = daqakd.quantize(model, weight_bits=3, act_bits=3, first_last="same")
    return daqakd.calibrate(student, images(0))


def train_on_rank(rank: int, folder: Path) -> None:
    wrapped = torch.nn.parallel.DistributedDataParallel(small_student())
    torch.save(gradients(wrapped, images(1)[rank::RANKS]), folder / f"gradients{rank}.pt")


class Partly(torch.nn.Module):
    """Some weights of the bank are never used."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.never = (torch.nn.Linear(6, 6) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


def partly(rank: int) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    student = daqakd.quantize(Partly(), weight_bits=3, act_bits=None, method="lsq")
    return student, torch.randn(4, 6, generator=torch.Generator().manual_seed(rank))


def bank_on_rank(rank: int, folder: Path) -> None:
    student, x = partly(rank)
    wrapped = torch.nn.parallel.DistributedDataParallel(student, find_unused_parameters=True)
    for _ in range(2):
        wrapped.zero_grad()
        found = gradients(wrapped, x)
    torch.save(found, folder / f"bank{rank}.pt")


def curved(x: torch.Tensor) -> dict[str, float]:
    torch.manual_seed(0)
    student = daqakd.quantize(SmallNet(), weight_bits=3, act_bits=3, method="ewgs", delta="hessian")
    daqakd.calibrate(student, images(0) + images(1))
    student.train()

    def loss(x: torch.Tensor) -> torch.Tensor:
        return student(x).logsumexp(1).square().mean()

    return daqakd.update_delta(student, loss, [x])


def curve_on_rank(rank: int, folder: Path) -> None:
    torch.save(curved(images(rank)), folder / f"delta{rank}.pt")


TASKS = (calibrate_on_rank, reduce_on_rank, train_on_rank, bank_on_rank, curve_on_rank)


def work_on_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", RANKS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS)
    for task in TASKS:
        task(rank, Path(folder))
    gc.collect()  # wrapped models hold the group's threads, in reference cycles
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(work_on_rank, (str(folder),), RANKS)
    return folder


def test_calibration_is_the_same_on_every_rank(ranks: Path):
    states = [
        torch.load(ranks / f"calibrated{rank}.pt", weights_only=True) for rank in range(RANKS)
    ]
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key
    assert states[0]["conv1.act_quantizer.signed"], "rank 1's negative inputs were not seen"
    alpha = "conv1.act_quantizer.alpha"
    alone = [calibrated(images(rank)).get_parameter(alpha) for rank in range(RANKS)]
    together = states[0][alpha]
    torch.testing.assert_close(together, (alone[0] + alone[1]).detach() / 2)


def test_reduced_states_equal_one_process(ranks: Path):
    logits, hard, soft = rows()
    for name, labels in (("hard", hard), ("soft", soft)):
        whole = CMIState(5)
        whole.update(logits, labels)
        for rank in range(RANKS):
            sums, cmi, pac = torch.load(ranks / f"{name}{rank}.pt", weights_only=False)
            assert torch.equal(sums, whole.sums)
            assert pac == whole.pac()
            assert abs(cmi - whole.cmi()) <= 1e-12 * whole.cmi()


def test_ddp_gives_the_gradients_of_the_whole_batch(ranks: Path):
    """LSQ's gradient scale counts one sample's features, so ranks do not change a step's rate."""
    whole = gradients(small_student(), images(1))
    for rank in range(RANKS):
        seen = torch.load(ranks / f"gradients{rank}.pt", weights_only=True)
        for name, grad in whole.items():
            torch.testing.assert_close(seen[name], grad, rtol=1e-4, atol=1e-6)


def test_weights_quantized_together_under_ddp(ranks: Path):
    """One node for all weights, some of them unused: nobody waits, gradients are the mean."""
    seen = [torch.load(ranks / f"bank{rank}.pt", weights_only=True) for rank in range(RANKS)]
    alone = [gradients(*partly(rank)) for rank in range(RANKS)]
    for name, one in alone[0].items():
        other = alone[1][name]
        if one is None or other is None:
            assert seen[0][name] is seen[1][name] is None, name
            continue
        torch.testing.assert_close(seen[0][name], (one + other) / 2)
        assert torch.equal(seen[0][name], seen[1][name]), name


def test_deltas_are_the_same_on_every_rank(ranks: Path):
    seen = [torch.load(ranks / f"delta{rank}.pt", weights_only=True) for rank in range(RANKS)]
    assert seen[0] == seen[1]
    assert max(seen[0].values()) > 0
    assert seen[0] != curved(images(0))
