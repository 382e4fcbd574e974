"""``*_many``: the same as the single ops, tensor by tensor, whatever the list."""

import pytest
import torch
from torch import Tensor

from daqakd import functional

from ..helpers import cases
from ..helpers.cases import DENSE, EMPTY, FLAT, SPARSE, each_backend
from ..helpers.machine import with_threads

pytestmark = pytest.mark.usefixtures("poisoned_empty")
LAYOUTS = (*FLAT[::3], *DENSE, *SPARSE)
FEW = (FLAT[6], *DENSE[4:6], SPARSE[2])  # Triton's interpreter walks the list in every program
LARGE = {
    "native": cases.Case("larger-than-a-chunk", (40_000,)),
    "triton": cases.Case("larger-than-a-tile", (2_500,)),
}
LARGE |= {"reference": LARGE["native"], "emulated": LARGE["triton"]}
TILED = (
    cases.Case("long-rows", (3, 5_000)),
    cases.Case("uneven-rows", (5, 2_051)),
    cases.Case("short-rows", (40, 3, 3)),
    cases.Case("long-columns", (3, 5_000), lambda x: x.t()[:40]),
    cases.Case("moved-rows", (7, 2_056), cases.off_by_one_element),
)
STEMS = ("lsq_many", "dorefa_weight_many", "ewgs_many")
each_compiled = pytest.mark.parametrize("backend", ["native", "emulated"])
each_stem = pytest.mark.parametrize("stem", STEMS)


def weights(dtype: torch.dtype, layouts=LAYOUTS) -> list[Tensor]:
    return [case.make(dtype, scale=0.7).requires_grad_() for case in layouts]


def value(number: float, dtype: torch.dtype) -> Tensor:
    return torch.tensor(number, dtype=cases.parameter_dtype(dtype), requires_grad=True)


def widths(count: int) -> list[int]:
    """Return bits that differ from tensor to tensor."""
    return [(2, 3, 4, 8)[i % 4] for i in range(count)]


def single(stem: str, w: list[Tensor], parameters: list[list[Tensor]], backend: str, **options):
    """Apply the single op tensor by tensor."""
    bits = options.pop("bits", widths(len(w)))
    run = getattr(functional, stem.removesuffix("_many"))
    if stem != "lsq_many":
        rows = zip(w, *parameters, bits, strict=True)
        return [run(*row, bits=b, backend=backend, **options) for *row, b in rows]
    scales = options.pop("grad_scale", [1.0] * len(w))
    rows = zip(w, parameters[0], bits, scales, strict=True)
    return [
        run(
            x, s, bits=b, signed=True, axis=None if s.numel() == 1 else 0, grad_scale=scale,
            backend=backend, **options,
        )
        for x, s, b, scale in rows
    ]  # fmt: skip


def together(stem: str, w: list[Tensor], parameters: list[list[Tensor]], backend: str, **options):
    """Apply the op to all tensors at once."""
    bits = options.pop("bits", widths(len(w)))
    signed = {"signed": True} if stem == "lsq_many" else {}
    run = getattr(functional, stem)
    return run(w, *parameters, bits=bits, backend=backend, **signed, **options)


def parameters_of(stem: str, w: list[Tensor], per_row: bool) -> list[list[Tensor]]:
    dtype = w[0].dtype
    if stem == "dorefa_weight_many":
        return []
    if stem == "ewgs_many":
        return [[value(-0.9, dtype) for _ in w], [value(0.8, dtype) for _ in w]]
    rows = [x.shape[0] if per_row and x.dim() and x.numel() else 1 for x in w]
    steps = [torch.linspace(0.1, 0.4, n, dtype=cases.parameter_dtype(dtype)) for n in rows]
    steps = [s.reshape(()) if n == 1 else s for s, n in zip(steps, rows, strict=True)]
    return [[s.requires_grad_() for s in steps]]


OPTIONS: dict[str, list[dict]] = {
    "lsq_many": [{}, {"ste": "open"}, {"ste": "rounded"}],
    "dorefa_weight_many": [{}, {"detach_max": False}],
    "ewgs_many": [{"delta": 0.1}, {"delta": torch.tensor(0.2)}],
}
FORMS = {
    f"{stem}-{i}{'-rows' if per_row else ''}": (stem, options, per_row)
    for stem in STEMS
    for i, options in enumerate(OPTIONS[stem])
    for per_row in ((False, True) if stem == "lsq_many" else (False,))
}


def outcome(run, stem, options, per_row, dtype, backend, layouts=LAYOUTS, moved=False, **more):
    w = weights(dtype, layouts)
    parameters = parameters_of(stem, w, per_row)
    if stem == "lsq_many":
        more["grad_scale"] = [0.5 + 0.1 * i for i in range(len(w))]
    y = run(stem, w, parameters, backend, **options, **more)
    inputs = [*w, *(p for group in parameters for p in group)]
    generator = torch.Generator().manual_seed(7)
    g = [torch.randn(one.shape, generator=generator).to(dtype) for one in y]
    if moved:
        g = [cases.off_by_one_element(one) for one in g]
    return list(y), list(torch.autograd.grad(y, inputs, g)), len(w)


def rounded(backend: str) -> set[str]:
    """Return which results need not have the single op's bits: Triton's compiler orders sums."""
    return {"parameters"} if backend == "triton" else set()


def assert_same(found, wanted, close=frozenset()) -> None:
    """Compare values and gradients, bit for bit unless their name is in ``close``."""
    (y, grads, count), (y2, grads2, _) = found, wanted
    parts = {"y": (y, y2), "dx": (grads[:count], grads2[:count])}
    parts["parameters"] = (grads[count:], grads2[count:])
    for name, (own, other) in parts.items():
        for a, b in zip(own, other, strict=True):
            assert a.stride() == b.stride()
            if name not in close:
                assert torch.equal(a, b)
                continue
            rtol = max(1e-5, torch.finfo(a.dtype).eps)
            size = float(b.detach().abs().max()) if b.numel() else 0.0
            torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * (size + 1))


@cases.each_combination(form=FORMS)
def test_equals_the_single_op(form, dtype, backend):
    stem, options, per_row = form
    cases.require(stem, backend, dtype)
    layouts = FEW if backend == "triton" else LAYOUTS
    arguments = stem, options, per_row, dtype, backend, layouts
    assert_same(outcome(together, *arguments), outcome(single, *arguments), rounded(backend))


@each_compiled
@pytest.mark.parametrize("dtype", cases.named(cases.DTYPES, cases.dtype_name))
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_equals_the_single_op_on_many_tiles(form, dtype, backend):
    """Also where the gradients lie otherwise than for the single op."""
    stem, options, per_row = form
    cases.require(stem, backend, dtype)
    arguments = stem, options, per_row, dtype, backend, TILED
    found = outcome(together, *arguments, moved=True)
    assert_same(found, outcome(single, *arguments))


@pytest.mark.parametrize("backend", ["native", pytest.param("emulated", marks=pytest.mark.slow)])
@each_stem
def test_equals_the_single_op_on_a_very_large_tensor(stem, backend):
    """CUDA cuts it into larger tiles."""
    cases.require(stem, backend)
    layouts = (cases.Case("very-large", (2, 2**20 + 8)), FLAT[0])
    arguments = stem, OPTIONS[stem][-1], stem == "lsq_many", torch.float32, backend, layouts
    assert_same(outcome(together, *arguments), outcome(single, *arguments))


@pytest.mark.parametrize("backend", ["native", "triton", "emulated"])
@pytest.mark.parametrize("stem", ["dorefa_weight_many", "ewgs_many"])
def test_one_bit(stem, backend):
    """The mean over a tensor scales its values."""
    cases.require(stem, backend)
    layouts = (
        *FEW,
        LARGE[backend],
        *(cases.Case(f"n{n}", (n,)) for n in (27, 2_501, 2_502, 2_503, 2_504)),
    )
    for options in OPTIONS[stem]:
        arguments = stem, options, False, torch.float32, backend, layouts
        bits = [1, 8, *[1] * (len(layouts) - 2)]
        found = outcome(together, *arguments, bits=bits)
        wanted = outcome(single, *arguments, bits=bits)
        assert_same(found, wanted, rounded(backend))


@each_backend
@each_stem
def test_large_and_empty_tensors_in_one_list(stem, backend):
    cases.require(stem, backend)
    layouts = (*EMPTY, LARGE[backend], FLAT[0], EMPTY[0])
    arguments = stem, OPTIONS[stem][0], False, torch.float32, backend, layouts
    assert_same(outcome(together, *arguments), outcome(single, *arguments), rounded(backend))


@each_backend
@each_stem
def test_more_tensors_than_a_launch_takes(stem, backend):
    cases.require(stem, backend)
    layouts = FLAT[:3] * (11 if backend == "triton" else 20)  # Triton takes 32, CUDA about 40
    arguments = stem, OPTIONS[stem][0], False, torch.float32, backend, layouts
    assert_same(outcome(together, *arguments), outcome(single, *arguments), rounded(backend))


@pytest.mark.parametrize("threads", [1, 2, 3])
@each_stem
def test_any_number_of_threads_gives_the_same_bits(stem, threads):
    cases.require(stem, "native")
    layouts = (cases.Case("huge", (300_000,)), *(LARGE["native"],) * 5, *FLAT)
    arguments = stem, OPTIONS[stem][0], False, torch.float32, "native", layouts
    wanted = outcome(single, *arguments)
    (found,) = with_threads(lambda: outcome(together, *arguments), (threads,))
    assert_same(found, wanted)


@each_backend
@each_stem
def test_a_tensor_whose_result_is_not_used_gets_no_gradient(stem, backend):
    """Zeros instead would move it by weight decay and momentum."""
    cases.require(stem, backend)
    w = weights(torch.float32, FLAT[3:6])
    parameters = parameters_of(stem, w, False)
    y = together(stem, w, parameters, backend)
    (y[0].sum() + y[2].sum()).backward()
    assert [x.grad is None for x in w] == [False, True, False]
    for group in parameters:
        assert [p.grad is None for p in group] == [False, True, False]
    again = [x.detach().requires_grad_() for x in w]
    y = single(stem, again, parameters, backend)
    (y[0].sum() + y[2].sum()).backward()
    for x, x2 in zip(w[::2], again[::2], strict=True):
        torch.testing.assert_close(x.grad, x2.grad)


@each_stem
def test_an_empty_list(stem):
    parameters = [[]] * {"lsq_many": 1, "dorefa_weight_many": 0, "ewgs_many": 2}[stem]
    assert together(stem, [], parameters, "reference") == ()


@each_stem
def test_frozen_tensors(stem):
    """Nothing needs a gradient: nothing is kept."""
    w = [x.detach() for x in weights(torch.float32, FLAT[:3])]
    parameters = [[p.detach() for p in group] for group in parameters_of(stem, w, False)]
    assert not any(y.requires_grad for y in together(stem, w, parameters, None))


def test_native_refuses_lists_that_do_not_match():
    cases.require("lsq_many", "native")
    x = [torch.ones(3), torch.ones(3)]
    op = torch.ops.daqakd.lsq_many_forward.native
    with pytest.raises(RuntimeError, match="one of each per tensor"):
        op(x, x[:1], [-2, -2], [1, 1])
    with pytest.raises(RuntimeError, match="one dtype"):
        op([x[0], x[1].double()], [torch.ones(())] * 2, [-2, -2], [1, 1])
