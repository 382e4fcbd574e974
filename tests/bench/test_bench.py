"""The microbenchmarks' harness: what is timed, what is refused, what is written."""

import json
from dataclasses import replace
from typing import get_args

import pytest
import torch

from daqakd.bench import measure, roofline
from daqakd.bench import run as bench
from daqakd.bench.many import resnet20_shapes
from daqakd.bench.quantizer import QuantizerBenchmark, shape_of
from daqakd.bench.registry import BENCHMARKS, find
from daqakd.bench.step import Step, Workload, with_formulas
from daqakd.cli import bench as command
from daqakd.cli.main import main
from daqakd.functional._many import Together

ALL = {name: find(name) for name in BENCHMARKS}
QUANTIZERS = {name: op for name, op in ALL.items() if isinstance(op, QuantizerBenchmark)}
ROWS = [(name, form) for name, op in QUANTIZERS.items() for form in op.forms]
LSQ = ALL["lsq"]
COLUMNS = ["op", "elements", "dtype", "form", "provider", "us", "x compile", "of floor"]
COLUMNS += ["images/s"]
KEYS = ["op", "elements", "dtype", "form", "provider", "seconds", "of_floor"]
KEYS += ["images_per_second", "spread", "note", "convention"]


def failing(*inputs):
    raise RuntimeError("not here\nsecond line")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(measure, "ROUND_SECONDS", 0.0)
    monkeypatch.setattr(measure, "ROTATION_BYTES", 2**14)
    monkeypatch.setattr(roofline, "copy_speed", lambda device: 1e9)


def spoiled(place):
    """Return what makes a run's result ``place`` wrong in its last elements."""

    def spoil(run):
        def wrong(*inputs):
            results = [r.detach().clone() for r in run(*inputs)]
            results[place].flatten()[-16:] += 0.5 * results[place].abs().max()
            return tuple(results)

        return wrong

    return spoil


@pytest.mark.parametrize(("name", "form"), ROWS)
@pytest.mark.parametrize("dtype", bench.DTYPES)
def test_only_right_results_are_timed(dtype, name, form):
    op = QUANTIZERS[name]
    case = op.case(1024, bench.DTYPES[dtype], form, "cpu")
    assert case.numel == 1024
    runs = {
        "ours": lambda run: run,
        "values": spoiled(0),
        "input gradient": spoiled(1),
        "failing": lambda run: failing,
    }
    if dtype == "float32" and name != "lsq":  # LSQ's step gradient differs by convention
        runs |= {f"parameter {i}": spoiled(2 + i) for i, _ in enumerate(op.initial)}
    case = replace(case, bind=lambda spoil, bind=case.bind: spoil(bind(op.ours)))
    rows = {row.provider: row for row in measure.compare(case, runs, rounds=2)}
    assert list(rows) == list(runs)
    assert rows["ours"].seconds > 0
    assert rows["ours"].of_roofline == case.roofline_seconds() / rows["ours"].seconds
    notes = ["", "its values are wrong", "its input gradient is wrong", "RuntimeError: not here"]
    notes += (len(runs) - len(notes)) * ["its parameter gradients are wrong"]
    assert [row.note for row in rows.values()] == notes
    assert all(rows[name].seconds is None for name in runs if name != "ours")


@pytest.mark.parametrize(("op", "form"), ROWS)
def test_every_provider_is_right(op, form):
    benchmark = QUANTIZERS[op]
    case = benchmark.case(1024, torch.float32, form, "cpu")
    found = benchmark.providers("cpu")
    assert {"eager", "compile", "reference"} <= found.keys()
    for name, provider in found.items():
        if name != "compile":  # seconds each; it is verified whenever it is timed
            assert measure.problem(case, case.bind(provider)) is None, name


@pytest.mark.parametrize("form", ["10", "1000"])
def test_a_loss_is_timed_when_it_and_its_gradient_are_right(form):
    op = ALL["kd_loss"]
    ours, case = op.providers("cpu")["reference"], op.case(2000, torch.bfloat16, form, "cpu")
    assert case.numel == 2000
    case = replace(case, bind=lambda spoil, bind=case.bind: spoil(bind(ours)))
    runs = {"ours": lambda run: run, "values": spoiled(0), "input gradient": spoiled(1)}
    notes = [row.note for row in measure.compare(case, runs, rounds=1)]
    assert notes == ["", "its values are wrong", "its input gradient is wrong"]


@pytest.mark.parametrize("form", ["10", "1000"])
def test_every_provider_has_the_same_loss(form):
    op = ALL["kd_loss"]
    case = op.case(2000, torch.float32, form, "cpu")
    for name, provider in op.providers("cpu").items():
        if name != "compile":
            assert measure.problem(case, case.bind(provider)) is None, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", ALL["bn_act_quant"].forms)
def test_every_provider_of_a_layer_is_right(form, dtype):
    op = ALL["bn_act_quant"]
    case, found = op.case(4096, dtype, form, "cpu"), op.providers("cpu")
    for name in found.keys() - {"compile"}:
        assert measure.problem(case, case.bind(found[name])) is None, name


@pytest.mark.parametrize("form", ALL["bn_act_quant"].forms)
def test_a_layer_is_timed_when_all_it_gives_is_right(form):
    op, at_end = ALL["bn_act_quant"], form.endswith("-residual")
    case = op.case(4096, torch.float32, form, "cpu")
    run, inputs = case.bind(op.providers("cpu")["reference"]), case.make()
    read, grads = run(*inputs)
    assert len(read) == 1 + at_end
    names = ["values are", *["values are"] * at_end, "input gradient is"]
    names += ["residual gradient is"] * at_end + ["norm gradients are"] * 2
    names += ["parameter gradients are"] * (0 if "lsq" in form else len(grads) - 3 - at_end)
    for place, name in enumerate(names):
        results = list(spoiled(place)(lambda: (*read, *grads))())
        result = results[: len(read)], results[len(read) :]
        assert case.verify(result, inputs) == f"its {name} wrong"


@pytest.mark.parametrize("form", ALL["many"].forms)
def test_many_weights_are_checked_one_by_one(form):
    op = ALL["many"]
    case = op.case(128, torch.float32, form, "cpu")
    found = op.providers("cpu")
    for name in found.keys() - {"compile"}:
        assert measure.problem(case, case.bind(found[name])) is None, name
    run = case.bind(found["eager"])

    def wrong(*inputs):
        y, grads = run(*inputs)
        return [*y[:-1], y[-1] + 0.1], grads

    assert measure.problem(case, wrong) == "tensor 7: its values are wrong"


def test_the_weights_of_resnet20():
    assert sum(torch.Size(shape).numel() for shape in resnet20_shapes()) == 268336
    assert ALL["resnet20"].case(0, torch.float32, "lsq", "cpu").numel == 268336


@pytest.mark.parametrize(
    ("op", "dtype"),
    [
        ("step", torch.float32),
        ("kd_step", torch.float32),
        ("compiled_step", torch.float32),
        ("compiled_step", torch.bfloat16),
    ],
)
def test_a_step_is_timed_when_its_loss_is_right(op, dtype):
    case = ALL[op].case(4, dtype, "lsq", "cpu")
    found = ALL[op].providers("cpu") | {"reference": Step("student", "reference")}
    found = {name: step for name, step in found.items() if not name.endswith("compile")}

    def off(*inputs):
        work, step, loss = found["reference"](*inputs)
        return work, step, 1.01 * loss

    rows = measure.compare(case, {**found, "off": off}, rounds=1)
    assert [row.note for row in rows] == [*[""] * len(found), "its loss is wrong"]
    assert all(row.of_roofline is None for row in rows)


@pytest.mark.parametrize(
    ("compiled", "dtype", "right"),
    [
        (True, torch.bfloat16, True),
        (False, torch.bfloat16, False),
        (True, torch.float32, False),
    ],
)
def test_only_fused_steps_of_16_bits_may_be_roundings_off(compiled, dtype, right):
    case = ALL["compiled_step"].case(2, dtype, "lsq", "cpu")
    (work,) = case.make()
    _, step, loss = case.bind(Step("plain"))(work)
    step = replace(step, compiled=compiled)
    assert (case.verify((work, step, 1.03 * loss), (work,)) is None) == right
    assert case.verify((work, step, 1.1 * loss), (work,)) == "its loss is wrong"


def test_the_formulas_have_the_students_gradients():
    work = Workload(4, bits=4, method="lsq", distilled=True, device="cpu")
    grads = []
    for network in (work.student, with_formulas(work.student)):
        parameters = dict(network.named_parameters())
        found = torch.autograd.grad(work.loss(network, ours=True), list(parameters.values()))
        grads.append(dict(zip(parameters, found, strict=True)))
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        size = float(grad.norm()) + 1e-6
        assert float((grads[1][name] - grad).norm()) < 0.05 * size, name


def test_a_step_without_the_cache_quantizes_weight_by_weight(monkeypatch):
    calls = []
    many = Together.__call__
    monkeypatch.setattr(Together, "__call__", lambda call: calls.append(1) or many(call))
    work = Workload(2, bits=2, method="lsq", distilled=False, device="cpu")
    calls.clear()
    Step("single", "native")(work)
    assert not calls
    Step("student", "native")(work)
    assert calls


@pytest.mark.parametrize("form", ALL["augment"].forms)
def test_a_batch_is_timed_when_its_pixels_are_right(form):
    op = ALL["augment"]
    case, found = op.case(4, torch.float32, form, "cpu"), op.providers("cpu")

    def off(batch):
        images = found["reference"](batch).clone()
        images[3, 2, -1, -1] += 1
        return images

    rows = measure.compare(case, {**found, "off": off}, rounds=1)
    wanted = [*[""] * len(found), "1 of 12288 values differ"]
    assert [row.note for row in rows] == wanted
    assert rows[0].provider == "torchvision"
    assert rows[0].images_per_second == 4 / rows[0].seconds
    assert rows[-2].of_roofline == 12288 * (1 + 4) / 1e9 / rows[-2].seconds


@pytest.mark.parametrize("extent", [(3, 0.0, 0.5), (4, -9.0, 0.5), (4, 0.0, float("nan"))], ids=str)
def test_images_that_torchvision_cannot_have_made(extent):
    case = ALL["augment"].case(4, torch.float32, "nothing", "cpu")
    assert measure.problem(case, lambda batch: [extent]) == "its images are wrong"


def test_measurements_are_kept_when_the_rest_fails(tmp_path, monkeypatch):
    case = type(LSQ).case

    def stopped(op, size, dtype, form, device):
        if form == "channel":
            raise KeyboardInterrupt
        return case(op, size, dtype, form, device)

    monkeypatch.setattr(type(LSQ), "case", stopped)
    monkeypatch.setattr(type(LSQ), "providers", lambda op, device: {"eager": LSQ.eager})
    with pytest.raises(KeyboardInterrupt):
        bench.bench_into(tmp_path, ("lsq",), (64,), ("float32",), "cpu", 1)
    record = json.loads((tmp_path / "bench.json").read_text())
    assert [row["form"] for row in record["rows"]] == ["tensor"]


def test_rounds_are_interleaved():
    order = []
    case = LSQ.case(64, torch.float32, "tensor", "cpu")
    case = replace(case, verify=lambda results, inputs: None)
    runs = {name: lambda *_, name=name: order.append(name) or torch.zeros(()) for name in "ab"}
    case = replace(case, bind=lambda provider: provider)
    measure.compare(case, runs, rounds=3)
    assert order[-6:] == list("ababab")


def test_the_roofline_counts_every_tensor_once():
    assert ALL["lsq"].traffic.bytes(10, torch.bfloat16) == 5 * 10 * 2
    assert ALL["pact"].traffic.bytes(8, torch.float32) == 8 * (8.25 + 8.25)
    assert ALL["dorefa_activation"].traffic.bytes(8, torch.float32) == 8 * (8.125 + 8.125)
    assert ALL["dorefa_weight"].traffic.bytes(10, torch.float32) == 10 * (12 + 12)


@pytest.mark.parametrize("size", [64, 100, 1000, 65536])
def test_images_have_about_as_many_elements_as_asked(size):
    shape = shape_of(size, 1)
    assert size / 2 <= torch.Size(shape).numel() <= size


def test_bench_leaves_a_file_and_a_table(tmp_path, monkeypatch, capsys):
    runs = {"compile": LSQ.ours, "failing": failing}
    monkeypatch.setattr(type(LSQ), "providers", lambda op, device: runs)
    arguments = ["--op", "lsq", "--size", "256", "--dtype", "float32", "--turns", "1"]
    assert main(["bench", "--out", str(tmp_path), "--device", "cpu", *arguments]) == 0
    shown = capsys.readouterr().out
    assert list(bench.COLUMNS) == COLUMNS
    assert all(column in shown for column in COLUMNS)
    assert "(RuntimeError: not here)" in shown
    record = json.loads((tmp_path / "bench.json").read_text())
    assert record["copy_bytes_per_second"] == 1e9
    assert [row["form"] for row in record["rows"]] == ["tensor"] * 2 + ["channel"] * 2
    assert list(record["rows"][0]) == KEYS
    assert record["turns"] == 1
    assert record["packages"]["torch"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--size", "size: expected an integer from 64"),
        ("--turns", "turns: expected"),
        ("--images", "images: expected"),
    ],
)
def test_what_cannot_be_measured(option, message, tmp_path, capsys):
    assert main(["bench", option, "0", "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_every_op_can_be_asked_for():
    assert get_args(command.Op) == tuple(BENCHMARKS)
