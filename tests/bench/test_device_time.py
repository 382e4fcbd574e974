"""A GPU's own time beside the wall time; what torch's GPU calls answer is made up here."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from daqakd.bench import device_time, measure, roofline
from daqakd.bench import run as bench
from daqakd.bench.augment import GraphReplay
from daqakd.bench.device_time import DeviceTime
from daqakd.bench.registry import find

LSQ = find("lsq")
CASE = replace(LSQ.case(64, torch.float32, "tensor", "cpu"), device="cuda")
COLUMNS = {"device_seconds", "device_of_floor", "launches", "timed_by"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(measure, "ROUND_SECONDS", 0.0)
    monkeypatch.setattr(roofline, "copy_speed", lambda device: 1e9)


@pytest.fixture
def two_kernels(monkeypatch):
    monkeypatch.setattr(device_time, "launched", lambda call: [("one", 0.25), ("two", 0.5)])


def test_a_replay_of_many_calls_is_the_time_of_one(monkeypatch, two_kernels):
    monkeypatch.setattr(device_time, "captured", lambda calls: ("graph", [c() for c in calls][-1]))
    monkeypatch.setattr(device_time, "replay_seconds", lambda graph, count: 8e-6)
    calls = [lambda: 1, lambda: 2, lambda: 3, lambda: 4]
    assert device_time.device_time(calls) == DeviceTime(2e-6, 2, "graph", 4)


def test_what_no_graph_can_hold_has_the_time_of_its_kernels(monkeypatch, two_kernels):
    def refused(calls):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(device_time, "captured", refused)
    assert device_time.device_time([lambda: None]) == DeviceTime(0.75, 2, "kernels")


def test_a_replay_is_not_captured_again(monkeypatch, two_kernels):
    seen = []
    monkeypatch.setattr(device_time, "captured", seen.append)
    replay = GraphReplay("native")
    found = device_time.device_time([lambda: None], capture=not replay.is_replay)
    assert found == DeviceTime(0.75, 2, "kernels")
    assert not seen


def test_what_runs_on_the_cpu_has_no_device_time(monkeypatch):
    monkeypatch.setattr(device_time, "launched", lambda call: [])
    assert device_time.device_time([lambda: None]) == DeviceTime()


def test_launches_are_what_ran_on_the_gpu(monkeypatch):
    def event(name, device, annotation=False):
        span = SimpleNamespace(elapsed_us=lambda: 4.0)
        return SimpleNamespace(
            name=name, device_type=device, time_range=span, is_user_annotation=annotation
        )

    gpu, cpu = torch.autograd.DeviceType.CUDA, torch.autograd.DeviceType.CPU
    events = [event("launch", cpu), event("kernel", gpu), event("SGD.step", gpu, annotation=True)]

    class Profile:
        def __init__(self, activities):
            assert activities == [torch.profiler.ProfilerActivity.CUDA]

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def events(self):
            return events

    called = []
    monkeypatch.setattr(torch.profiler, "profile", Profile)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: called.append("waited"))
    assert device_time.launched(lambda: called.append("called")) == [("kernel", 4e-6)]
    assert called == ["waited", "called", "waited"]


class Graph:
    """Stands for a CUDA graph; ``happened`` lists what it and its stream were asked for."""

    happened: ClassVar[list] = []

    def capture_begin(self, pool, capture_error_mode):
        self.happened.append(("begin", pool))

    def capture_end(self):
        self.happened.append("end")


@pytest.fixture
def graphs(monkeypatch):
    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(Graph, "happened", [])
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: Graph.happened.append("wait"))
    ended = lambda device, pool: Graph.happened.append(("freed", pool))  # noqa: E731
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", ended, raising=False)
    return Graph.happened


def test_a_graph_is_of_calls_that_have_run_before(graphs):
    calls = [lambda i=i: graphs.append(i) or i for i in range(2)]
    graph, result = device_time.captured(calls)
    assert isinstance(graph, Graph)
    assert result == 1
    assert graphs == [0, 1, "wait", ("begin", "pool"), 0, 1, "end"]


def test_a_capture_that_fails_is_ended(graphs):
    ran = []

    def once():
        ran.append(1)
        if len(ran) > 1:
            raise ValueError("waits")

    with pytest.raises(ValueError, match="waits"):
        device_time.captured([once])
    assert graphs == ["wait", ("begin", "pool"), "end", ("freed", "pool")]


def rows_on_gpu(monkeypatch, found):
    monkeypatch.setattr(measure, "device_time", found)
    runs = {"ours": LSQ.ours, "failing": lambda *inputs: 1 / 0}
    return {row.provider: row for row in measure.compare(CASE, runs, rounds=1)}


def test_rows_of_a_gpu_have_its_time(monkeypatch):
    time = DeviceTime(1e-6, 3, "graph", None)
    rows = rows_on_gpu(monkeypatch, lambda calls, capture: time)
    record = rows["ours"].record()
    assert record.keys() >= COLUMNS
    assert record["device_seconds"] == 1e-6
    assert record["device_of_floor"] == pytest.approx(64 * 5 * 4 / 1e9 / 1e-6)
    assert record["launches"] == 3
    assert dict.fromkeys(COLUMNS) == {key: rows["failing"].record()[key] for key in COLUMNS}


def test_rows_of_a_cpu_do_not(monkeypatch):
    case = LSQ.case(64, torch.float32, "tensor", "cpu")
    (row,) = measure.compare(case, {"ours": LSQ.ours}, rounds=1)
    assert not COLUMNS & row.record().keys()
    assert "device" not in row.record()


def test_a_replay_with_a_wrong_result_is_refused(monkeypatch):
    def replayed(calls, capture):
        y, *rest = [call() for call in calls][-1]
        return DeviceTime(1e-6, 3, "graph", (y + 1, *rest))

    row = rows_on_gpu(monkeypatch, replayed)["ours"]
    assert row.note == "replayed from a graph, its values are wrong"
    assert row.record()["device_seconds"] is None


def test_an_error_on_the_device_is_a_note(monkeypatch):
    def failing(calls, capture):
        raise RuntimeError("out of memory")

    row = rows_on_gpu(monkeypatch, failing)["ours"]
    assert row.note == "on the device alone: RuntimeError: out of memory"
    assert row.seconds > 0


def test_the_table_of_a_gpu_has_columns_more(monkeypatch, capsys):
    monkeypatch.setattr(measure, "device_time", lambda calls, capture: DeviceTime(2e-6, 7, "graph"))
    monkeypatch.setattr(type(LSQ), "providers", lambda op, device: {"ours": LSQ.ours})
    case = LSQ.case(64, torch.float32, "tensor", "cpu")
    on_gpu = replace(case, device="cuda")
    monkeypatch.setattr(type(LSQ), "case", lambda *arguments: on_gpu)
    monkeypatch.setattr(bench, "device_of", lambda name: None)
    bench.bench(["lsq"], [64], ["float32"], "cuda", 1)
    head, first = capsys.readouterr().out.splitlines()[1:3]
    assert head.split()[-6:] == ["us", "on", "device", "its", "floor", "launches"]
    assert first.split()[-3:] == ["2.0", "64%", "7"]
