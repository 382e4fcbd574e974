"""Launches that overlap must not share the counter that finds the last block, which adds up."""

import pytest
import torch

from daqakd._ops import overload

from ..helpers.cases import require

NUMEL, RUNS = 1_000_003, 50
OPS = {
    "lsq": lambda x, p: overload("lsq_backward", "native")(x.flip(0), x, p, -8, 7, None, 0, 0.5),
    "ewgs": lambda x, p: overload("ewgs_backward", "native")(x.flip(0), x, -p, p, 4, 0.1, None),
    "dorefa_weight": lambda x, p: (
        *overload("dorefa_weight_forward", "native")(x, 4),
        overload("dorefa_weight_backward", "native")(x.flip(0), x, p, 4, False),
    ),
    "lsq_many": lambda x, p: [
        value
        for values in overload("lsq_many_backward", "native")(
            [x, x[:5000]], [x, x[:5000]], [p, p], [-8, -8], [7, 7], 0, [0.5, 0.5]
        )
        for value in values
    ],
}
each_op = pytest.mark.parametrize("op", OPS)


def prepared(op: str):
    """Return a call of the op and its outputs, with nothing left to run."""
    require(op, "native", device="cuda")
    generator = torch.Generator().manual_seed(0)
    x, p = torch.randn(NUMEL, generator=generator).cuda(), torch.tensor(0.4, device="cuda")
    wanted = OPS[op](x, p)
    torch.cuda.synchronize()
    return lambda: OPS[op](x, p), wanted


def all_equal(results, wanted) -> bool:
    torch.cuda.synchronize()
    return all(all(map(torch.equal, result, wanted)) for result in results)


@pytest.mark.gpu
@each_op
def test_on_two_streams_at_once(op):
    run, wanted = prepared(op)
    streams, results = [torch.cuda.Stream() for _ in range(2)], []
    for i in range(RUNS):
        with torch.cuda.stream(streams[i % 2]):
            results.append(run())
    assert all_equal(results, wanted)


@pytest.mark.gpu
@each_op
def test_in_graphs_that_run_at_once(op):
    run, wanted = prepared(op)
    graphs, results = [torch.cuda.CUDAGraph() for _ in range(2)], []
    for graph in graphs:
        with torch.cuda.graph(graph):
            results.append(run())
    streams = [torch.cuda.Stream() for _ in graphs]
    torch.cuda.synchronize()
    for i in range(RUNS):
        with torch.cuda.stream(streams[i % 2]):
            graphs[i % 2].replay()
    assert all_equal(results, wanted)
