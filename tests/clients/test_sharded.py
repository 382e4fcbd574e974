"""DDP and FSDP2 on two gloo ranks, around students of timm and transformers."""

import gc
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import daqakd

from .loops import Images, Words, image_model, quantized, text_model
from .trial import METHODS, call, loss_of, tensors

RANKS = 2
MODELS = {"timm": image_model, "transformers": lambda: text_model("LlamaForCausalLM")}


def inputs(library: str):
    if library == "timm":
        return Images(4).images
    return {"input_ids": torch.stack([Words()[i]["input_ids"] for i in range(4)])}


def part(batch, rank: int):
    """Return the rank's half of a batch."""
    if isinstance(batch, dict):
        return {key: value[rank::RANKS] for key, value in batch.items()}
    return batch[rank::RANKS]


def calibrated(library: str, method: str) -> nn.Module:
    torch.manual_seed(0)
    student = quantized(MODELS[library](), method)
    return daqakd.calibrate(student, inputs(library)).eval()  # no dropout: ranks are compared


def blocks(student: Any) -> nn.ModuleList:
    found: nn.ModuleList = student.blocks if hasattr(student, "blocks") else student.model.layers
    return found


def two_steps(model: nn.Module, batch) -> torch.Tensor:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(call(model, batch)).backward()
        optimizer.step()
    with torch.no_grad():
        return torch.cat([x.flatten() for x in tensors(call(model, batch))])


def replicated(student: nn.Module) -> nn.Module:
    return DistributedDataParallel(student)


def sharded(student: nn.Module) -> nn.Module:
    mesh = init_device_mesh("cpu", (RANKS,))
    for block in blocks(student):
        fully_shard(block, mesh=mesh)
    fully_shard(student, mesh=mesh)
    return student


WRAPPERS = {"ddp": replicated, "fsdp2": sharded}


def train_on_rank(rank: int, library: str, method: str, wrapper: str) -> Any:
    """Return the outputs after two steps, and the whole state."""
    model = WRAPPERS[wrapper](calibrated(library, method))
    outputs = two_steps(model, part(inputs(library), rank))
    state: dict[str, Any] = get_model_state_dict(
        model, options=StateDictOptions(full_state_dict=True)
    )
    return outputs, {key: value.clone() for key, value in state.items()}


def work_on_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", RANKS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS)
    for case in itertools.product(MODELS, METHODS, WRAPPERS):
        torch.save(train_on_rank(rank, *case), Path(folder) / f"{'-'.join(case)}-{rank}.pt")
    gc.collect()  # wrapped models hold the group's threads, in reference cycles
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(work_on_rank, (str(folder),), RANKS)
    return folder


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("library", MODELS)
def test_two_ranks_train_one_student(library, method, wrapper, ranks):
    files = [ranks / f"{library}-{method}-{wrapper}-{rank}.pt" for rank in range(RANKS)]
    (outputs, state), (other_outputs, other_state) = (
        torch.load(f, weights_only=True) for f in files
    )
    assert outputs.isfinite().all()
    student = calibrated(library, method)
    start = {k: v.clone() for k, v in student.state_dict().items()}
    student.load_state_dict(state)
    assert any(not torch.equal(v, start[k]) for k, v in state.items())
    for rank, found in enumerate((outputs, other_outputs)):
        with torch.no_grad():
            wanted = tensors(call(student, part(inputs(library), rank)))
        torch.testing.assert_close(found, torch.cat([x.flatten() for x in wanted]))
    assert all(torch.equal(v, other_state[k]) for k, v in state.items() if k in other_state)
