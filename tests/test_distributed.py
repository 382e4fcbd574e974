"""Two gloo ranks: calibration gives every rank the same result, CMI states merge bit for bit."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import multiprocessing

import daqakd
from daqakd import CMIState

from .small import SmallNet

RANKS = 2


def join(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", RANKS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS)


def calibrated(images: torch.Tensor) -> torch.nn.Module:
    torch.manual_seed(0)
    student = daqakd.quantize(SmallNet(), weight_bits=3, act_bits=3, method="pact")
    return daqakd.calibrate(student, images)


def images(rank: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rank)
    x = torch.rand(8, 3, 16, 16, generator=generator)
    return x - 0.1 if rank else x  # only rank 1 sees negative inputs


def calibrate_on_rank(rank: int, folder: str) -> None:
    join(rank, folder)
    torch.save(calibrated(images(rank)).state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def rows(count: int = 101) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = 4 * torch.randn(count, 5, generator=generator)
    return logits, torch.arange(count) % 5, torch.rand(count, 5, generator=generator).softmax(1)


def reduce_on_rank(rank: int, folder: str) -> None:
    join(rank, folder)
    logits, hard, soft = rows()
    for name, labels in (("hard", hard), ("soft", soft)):
        state = CMIState(5)
        state.update(logits[rank::RANKS], labels[rank::RANKS])
        state.all_reduce()
        torch.save((state.sums, state.cmi(), state.pac()), f"{folder}/{name}{rank}.pt")
    dist.destroy_process_group()


def test_calibration_is_the_same_on_every_rank(tmp_path: Path):
    multiprocessing.spawn(calibrate_on_rank, (str(tmp_path),), RANKS)
    states = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key
    assert states[0]["conv1.act_quantizer.signed"], "rank 1's negative inputs were not seen"
    alone = [calibrated(images(rank)).conv1.act_quantizer.alpha for rank in range(RANKS)]
    together = states[0]["conv1.act_quantizer.alpha"]
    torch.testing.assert_close(together, (alone[0] + alone[1]).detach() / 2)


def test_reduced_states_equal_one_process(tmp_path: Path):
    multiprocessing.spawn(reduce_on_rank, (str(tmp_path),), RANKS)
    logits, hard, soft = rows()
    for name, labels in (("hard", hard), ("soft", soft)):
        whole = CMIState(5)
        whole.update(logits, labels)
        for rank in range(RANKS):
            sums, cmi, pac = torch.load(tmp_path / f"{name}{rank}.pt", weights_only=False)
            assert torch.equal(sums, whole.sums)
            assert pac == whole.pac()
            assert abs(cmi - whole.cmi()) <= 1e-12 * whole.cmi()
