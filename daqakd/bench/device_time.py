"""What a call takes on the GPU alone, beside its wall time.

Calls are captured in a CUDA graph, whose replays have their kernels and none of their Python. Where
that is impossible, the kernels' own times are added up, which leaves out the gaps between them.
"""

import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import torch
from torch.profiler import ProfilerActivity

ROUNDS = 5
ROUND_SECONDS = 0.005  # a round is as many replays as this takes
_INVALID: list[Any] = []  # torch's allocator may go on asking graphs whose capture failed

Call = Callable[[], Any]


class DeviceTime(NamedTuple):
    """The GPU's part of a call.

    Args:
        seconds: of one call, None where nothing ran on the GPU.
        launches: kernels, copies and fills of one call.
        timed_by: replays of a graph, or the kernels' own times.
        result: what the last captured call gave, from its replay.
    """

    seconds: float | None = None
    launches: int | None = None
    timed_by: Literal["graph", "kernels"] | None = None
    result: Any = None

    def record(self, roofline_seconds: float | None) -> dict[str, Any]:
        """Return the columns of a row."""
        timed = bool(roofline_seconds and self.seconds)
        return {
            "device_seconds": self.seconds,
            "device_of_floor": roofline_seconds / self.seconds if timed else None,  # type: ignore[operator]
            "launches": self.launches,
            "timed_by": self.timed_by,
        }


def launched(call: Call) -> list[tuple[str, float]]:
    """Return name and seconds of each kernel, copy and fill that a call runs on the GPU."""
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    found = [e for e in profile.events() or () if e.device_type == torch.autograd.DeviceType.CUDA]
    return [
        (event.name, event.time_range.elapsed_us() / 1e6)
        for event in found
        if not event.is_user_annotation
    ]


def captured(calls: Sequence[Call]) -> tuple[Any, Any]:
    """Return one graph of all calls and the last one's result.

    Raises:
        Exception: a call does what no graph can hold, such as waiting for the GPU.
    """
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    pool = torch.cuda.graph_pool_handle()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls:
            call()  # compiles, and fills what is cached
        torch.cuda.synchronize()
        try:
            graph.capture_begin(pool, capture_error_mode="thread_local")
            try:
                results = [call() for call in calls]
            finally:
                graph.capture_end()
        except Exception:
            _INVALID.append(graph)
            with suppress(RuntimeError):  # or the allocator takes the capture to be going on
                torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
            raise
    return graph, results[-1]


def replay_seconds(graph: Any, count: int) -> float:
    """Return the seconds of one replay, the mean of ``count``."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(count):
        graph.replay()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3 / count


def device_time(calls: Sequence[Call], *, capture: bool = True) -> DeviceTime:
    """Time calls that do the same on inputs of their own, in a graph where ``capture`` allows."""
    kernels = launched(calls[0])
    if not kernels:
        return DeviceTime()
    by_kernels = DeviceTime(sum(seconds for _, seconds in kernels), len(kernels), "kernels")
    if not capture:
        return by_kernels
    try:
        graph, result = captured(calls)
    except Exception:  # whatever a call raises where it must not wait
        return by_kernels
    count = max(1, int(ROUND_SECONDS / max(replay_seconds(graph, 1), 1e-6)))
    times = [replay_seconds(graph, count) for _ in range(ROUNDS)]
    return DeviceTime(statistics.median(times) / len(calls), len(kernels), "graph", result)
