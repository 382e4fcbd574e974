"""EWGS's delta by the trace of the Hessian: against exact traces, and that nothing else changes."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import daqakd
from daqakd import InputError, update_delta
from daqakd.functional import ewgs
from daqakd.quant.surrogate import updated_quantizers
from daqakd.train import curvature

from ..helpers.small import SlimResNet

WHOLE = {"method": "ewgs", "delta": "hessian", "first_last": "same"}


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(curvature, "ITERATIONS", 4)


def images(count=1):
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(8, 3, 8, 8, generator=generator) for _ in range(count)]


def slim(bits=3, **options):
    torch.manual_seed(1)
    net = SlimResNet()
    net.linear = nn.Sequential(nn.Dropout(0.3), net.linear)
    given = {"weight_bits": bits, "act_bits": bits, "method": "ewgs", "delta": "hessian"}
    student = daqakd.quantize(net, **given | options)
    daqakd.calibrate(student, images(2))
    return student.train()


def loss_of(student):
    def loss(x):
        labels = torch.arange(len(x), device=x.device) % 10
        return functional.cross_entropy(student(x), labels)

    return loss


def deltas(student):
    return {name: q.delta.item() for name, q in updated_quantizers(student).items()}


def linear(weight_bits, act_bits):
    layer = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.diag(torch.tensor([1.0, -2.0, 0.5, 4.0])))
    return daqakd.quantize(layer, weight_bits=weight_bits, act_bits=act_bits, **WHOLE)


def samples_of(student, loss, x):
    surrogate = curvature.Surrogate(student)
    with surrogate.in_place(), torch.enable_grad():
        draw = curvature._signs
        found = curvature._Estimate(
            surrogate, lambda: loss(x), lambda like, n, i: draw(like, 0, 0, n, i)
        )
        return found.traces(), found.gradients


def test_a_quadratic_of_the_weights_has_its_trace_exactly():
    student = linear(3, None).double()
    x = torch.diag(torch.tensor([1.0, 2.0, 4.0, 0.5], dtype=torch.float64))  # so H is diagonal
    traces, _ = samples_of(student, lambda x: student(x).square().sum() / 2, x)
    (found,) = traces.values()
    scale = 2 * student.output_scale.abs().item()  # from [0, 1] to what is multiplied
    torch.testing.assert_close(found, 4 * scale**2 * x.square().sum().item(), rtol=1e-9, atol=0.0)


def test_a_quadratic_of_the_activations_has_its_trace_exactly():
    student = linear(None, 4).double()
    x = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    daqakd.calibrate(student, [x])
    traces, gradients = samples_of(student, lambda x: student(x).square().sum() / 2, x)
    (found,), (g,) = traces.values(), gradients.values()
    square = student.weight.detach().square().sum().item()
    torch.testing.assert_close(found, 3 * square, rtol=1e-9, atol=0.0)
    delta = update_delta(student, lambda x: student(x).square().sum() / 2, [x])["act_quantizer"]
    wanted = (3 * square / 12) / (3 * g.std().item())
    torch.testing.assert_close(delta, wanted, rtol=1e-9, atol=0.0)
    assert student.act_quantizer.delta.item() == pytest.approx(delta)


def test_a_negative_trace_gives_zero_and_so_does_a_gradient_without_spread():
    student = linear(None, 4).double()
    x = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    daqakd.calibrate(student, [x])
    student.act_quantizer.delta.fill_(1.0)
    found = update_delta(student, lambda x: -student(x).square().sum(), [x])
    assert found == {"act_quantizer": 0.0} == deltas(student)
    assert update_delta(student, lambda x: 0 * student(x).sum(), [x]) == found


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)

    def forward(self, x):
        return self.b(torch.tanh(self.norm(self.a(x))) + 1)


def plain(student, x, shifts):
    """Return the loss by formulas, rounding's residual constant; ``shifts`` in order of use."""
    shifts, levels = iter(shifts), 2**3 - 1

    def discretised(t, quantizer):
        low, high = quantizer.lower.detach(), quantizer.upper.detach()
        t = ((t - low) / (high - low)).clamp(0, 1)
        at = t.detach()
        return t + (torch.round(at * levels) / levels - at) + next(shifts).view_as(t)

    def layer(one, x):
        x = discretised(x, one.act_quantizer)
        w = 2 * discretised(one.weight.detach(), one.weight_quantizer) - 1
        scale = one.output_scale.detach().abs()
        return functional.linear(x, w * scale, one.bias.detach() * scale)

    y = layer(student.a, x)
    y = (y - y.mean(0)) / (y.var(0, unbiased=False) + student.norm.eps).sqrt()
    z = layer(student.b, torch.tanh(y * student.norm.weight + student.norm.bias) + 1)
    return functional.cross_entropy(z, torch.tensor([0, 1, 0]))


def hadamard(order):
    rows = torch.ones(1, 1, dtype=torch.float64)
    while len(rows) < order:
        rows = torch.cat([torch.cat([rows, rows], 1), torch.cat([rows, -rows], 1)])
    return rows


def test_traces_are_those_of_the_exact_hessian_and_what_tensors_share_cancels(monkeypatch):
    torch.manual_seed(1)
    student = daqakd.quantize(Net(), weight_bits=3, act_bits=3, **WHOLE).double()
    x = torch.randn(3, 3, dtype=torch.float64)
    daqakd.calibrate(student, [x])
    student.train()
    sizes = [9, 12, 12, 8]  # of inputs and weights, layer by layer
    zeros = torch.zeros(sum(sizes), dtype=torch.float64)

    def loss(flat):  # what is rounded is constant in it, so it is the loss of this x only
        return plain(student, x, flat.split(sizes))

    hessian = torch.autograd.functional.hessian(loss, zeros)
    shared = hessian[:9, 21:33].abs().max()
    assert shared > 1e-3  # there is something to cancel
    g = torch.autograd.functional.jacobian(loss, zeros)
    wanted = [
        max(0.0, h.trace().item() / n / (3 * part.std().item()))
        for h, n, part in zip(_blocks(hessian, sizes), sizes, g.split(sizes), strict=True)
    ]
    rows, starts = hadamard(64), [0, *torch.tensor(sizes).cumsum(0).tolist()]

    def orthogonal(like, seed, epoch, tensor, slot):  # over all rows, the mean of v v^T is 1
        start = starts[tensor]
        row = rows[slot - curvature.CURVATURE]
        return row[start : start + like.numel()].view_as(like).clone()

    monkeypatch.setattr(curvature, "_signs", orthogonal)
    monkeypatch.setattr(curvature, "ITERATIONS", 64)
    monkeypatch.setattr(curvature, "TOLERANCE", -1.0)
    order = ["a.act_quantizer", "a.weight_quantizer", "b.act_quantizer", "b.weight_quantizer"]
    for start in (0.0, 0.7):  # delta itself has no part in it
        for q in updated_quantizers(student).values():
            q.delta.fill_(start)
        found = update_delta(student, lambda x: _cross_entropy(student(x)), [x])
        assert min(wanted) > 0.0
        torch.testing.assert_close([found[n] for n in order], wanted, rtol=1e-6, atol=0.0)


def _cross_entropy(z):
    return functional.cross_entropy(z, torch.tensor([0, 1, 0]))


def _blocks(matrix, sizes):
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [matrix[s : s + n, s : s + n] for s, n in zip(starts, sizes, strict=True)]


def test_float32_agrees_with_float64():
    student = slim(bits=4)
    student.linear[0].p = 0.0  # its draws depend on the dtype
    wide = copy.deepcopy(student).double()
    found = update_delta(student, loss_of(student), images())
    exact = update_delta(wide, loss_of(wide), [x.double() for x in images()])
    assert found == pytest.approx(exact, rel=0.05)
    assert min(exact.values()) > 0


class Bent(nn.Module):
    """Bends of every kind."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, bias=False), nn.Conv2d(6, 6, 3, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.pool, self.fc = nn.MaxPool2d(2), nn.Linear(6, 10)

    def forward(self, x):
        x = self.pool(functional.relu6(self.bn1(self.conv1(x))))
        x = functional.relu(self.bn2(self.conv2(x)), inplace=True).mean((2, 3))
        return self.fc(functional.leaky_relu(x - 0.4).add(0.1).relu_())


def test_a_bend_is_never_crossed(monkeypatch):
    torch.manual_seed(0)
    student = daqakd.quantize(Bent(), weight_bits=4, act_bits=4, **WHOLE).double()
    x = images()[0].double()
    daqakd.calibrate(student, [x])
    student.train()
    found = []
    for power in (-12, -28):
        monkeypatch.setitem(curvature.EPSILON, torch.float64, 2.0**power)
        found.append([*samples_of(student, loss_of(student), x)[0].values()])
    assert found[0] == pytest.approx(found[1], rel=0.02)
    assert min(map(abs, found[0])) > 0


def test_each_batch_counts_the_same():
    student, batches = slim(), images(2)
    both = update_delta(student, loss_of(student), batches)
    first = update_delta(student, loss_of(student), batches[:1])
    assert first != both
    # the signs differ, so that the second alone would not be half of the rest
    assert all(both[name] >= first[name] / 2 * 0.999 for name in both)


def state(student):
    tensors = {k: v.clone() for k, v in student.state_dict().items() if not k.endswith("delta")}
    modules = {n: (m.training, {*vars(m)}) for n, m in student.named_modules()}
    hooks = [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in student.modules()]
    return tensors, modules, hooks, torch.get_rng_state()


@pytest.mark.parametrize("save", ["values", "codes"])
def test_nothing_is_left_behind(save):
    student = slim(save=save, bits=4)
    student(images()[0]).sum().backward()
    before, grads = state(student), [p.grad for p in student.parameters()]
    kept = [None if g is None else g.clone() for g in grads]
    assert any(delta > 0 for delta in update_delta(student, loss_of(student), images(3)).values())
    after = state(student)
    assert before[1:3] == after[1:3]
    assert torch.equal(before[3], after[3])
    assert all(torch.equal(v, after[0][k]) for k, v in before[0].items())
    for p, grad, value in zip(student.parameters(), grads, kept, strict=True):
        assert p.grad is grad
        assert grad is None or torch.equal(grad, value)
    assert all(layer.save == save for layer in student.modules() if hasattr(layer, "save"))


def test_nothing_is_left_behind_by_a_loss_that_fails():
    student, calls = slim(), []

    def failing(x):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("lost")
        return loss_of(student)(x)

    before = state(student)
    with pytest.raises(RuntimeError, match=r"lost"):
        update_delta(student, failing, images())
    after = state(student)
    assert before[1:3] == after[1:3]
    assert torch.equal(before[3], after[3])
    assert all(torch.equal(v, after[0][k]) for k, v in before[0].items())
    assert set(deltas(student).values()) == {0.0}


def test_signs_depend_on_seed_and_epoch_alone():
    student, options = slim(), [{}, {"seed": 7}, {"epoch": 7}]
    found = [update_delta(student, loss_of(student), images(), **one) for one in options]
    torch.manual_seed(99)
    copied = copy.deepcopy(student)
    assert update_delta(copied, loss_of(copied), images()) == found[0]
    assert found[0] != found[1] != found[2] != found[0]
    signs = curvature._signs(torch.empty(40, 77), 0, 0, 0, 5)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(signs.mean()) < 0.1
    for other in [(1, 0, 0, 5), (0, 1, 0, 5), (0, 0, 1, 5), (0, 0, 0, 6)]:
        assert abs((signs * curvature._signs(signs, *other)).mean()) < 0.1


def test_fused_chains_and_saved_codes_give_the_same():
    student = slim(bits=4)
    wanted = update_delta(student, loss_of(student), images())
    fused = daqakd.fuse(slim(bits=4))
    kind = type(fused)
    assert update_delta(fused, loss_of(fused), images()) == wanted
    assert type(fused) is kind
    codes = daqakd.fuse(slim(bits=4, save="codes"))
    assert update_delta(codes, loss_of(codes), images()) == wanted


def test_other_methods_beside_it_are_straight_lines():
    student = slim(overrides={"blocks.0.*": {"weight_method": "lsq", "act_method": "lsq"}})
    found = update_delta(student, loss_of(student), images())
    assert not any(name.startswith("blocks.0") for name in found)
    assert max(found.values()) > 0


def test_gradients_follow_the_buffer():
    student = slim(save="codes")
    quantizer = student.blocks[0].conv1.weight_quantizer
    quantizer.delta.fill_(0.5)
    fused, (x,) = daqakd.fuse(copy.deepcopy(student)), images()
    grads = []
    for one in (student, fused):
        torch.manual_seed(0)
        loss_of(one)(x).backward()
        grads.append(one.blocks[0].conv1.weight.grad)
    w = student.blocks[0].conv1.weight
    by_hand = w.detach().clone().requires_grad_()
    ends = quantizer.lower.detach(), quantizer.upper.detach()
    g = torch.randn_like(w)
    ewgs(by_hand, *ends, bits=quantizer.bits, delta=0.5).backward(g)
    own = w.detach().clone().requires_grad_()
    quantizer.apply_op(own).backward(g)
    assert torch.equal(own.grad, by_hand.grad)
    torch.testing.assert_close(*grads)


def test_old_states_load_and_leave_delta_as_it_is():
    student, fixed = slim(), slim(delta=0.0)
    assert not any(name.endswith("delta") for name in fixed.state_dict())
    student.conv1.weight_quantizer.delta.fill_(0.25)
    student.load_state_dict(fixed.state_dict())
    assert student.conv1.weight_quantizer.delta == 0.25
    other = slim()
    other.load_state_dict(student.state_dict())
    assert other.conv1.weight_quantizer.delta == 0.25
    assert copy.deepcopy(student).conv1.weight_quantizer.delta == 0.25


def test_what_cannot_be_updated_is_refused():
    student, (x,) = slim(), images()
    with pytest.raises(InputError, match=r"^student: no quantizer has a delta to update"):
        update_delta(slim(delta=0.1), lambda x: x, [x])
    with pytest.raises(InputError, match=r"^batches: there is none"):
        update_delta(student, loss_of(student), [])
    with pytest.raises(InputError, match=r"^loss_of_batch: expected a function, got 3"):
        update_delta(student, 3, [x])
    with pytest.raises(InputError, match=r"^loss_of_batch: expected one value with a gradient"):
        update_delta(student, student, [x])
    with pytest.raises(
        InputError, match=r"^loss_of_batch: it runs none of the student's quantizer"
    ):
        update_delta(student, loss_of(slim()), [x])
    with pytest.raises(InputError, match=r"^epoch: expected an integer from 0 on, got -1"):
        update_delta(student, loss_of(student), [x], epoch=-1)
    with pytest.raises(InputError, match=r"^seed"):
        update_delta(student, loss_of(student), [x], seed=0.5)
    with pytest.raises(InputError, match=r"without autocast"), torch.autocast("cpu"):
        update_delta(student, loss_of(student), [x])
    with pytest.raises(InputError, match=r"quantizer: its delta is nan.*not finite"):
        update_delta(student, lambda x: loss_of(student)(x) * float("inf"), [x])
    assert set(deltas(student).values()) == {0.0}


@pytest.mark.parametrize("method", ["lsq", "pact", "dorefa"])
def test_other_methods_refuse_it_by_name(method):
    with pytest.raises(InputError, match=r"^delta: 'hessian' is for EWGS, and .*method='ewgs'"):
        slim(method=method)
    with pytest.raises(InputError, match=r"^delta: expected a finite number, or 'hessian', got 'h"):
        slim(delta="hesse")


def test_layers_that_compute_again_are_refused():
    student = slim()

    def loss(x):
        return torch.utils.checkpoint.checkpoint(student, x, use_reentrant=False).square().sum()

    with pytest.raises(InputError, match=r"^student: its layers .*checkpointing"):
        update_delta(student, loss, images())


def test_each_tensor_stops_by_its_own_tolerance(monkeypatch):
    monkeypatch.setattr(curvature, "ITERATIONS", 50)
    student, counts = linear(None, 4).double(), []
    x = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    daqakd.calibrate(student, [x])
    loss = lambda x: counts.append(1) or student(x).square().sum()  # noqa: E731
    update_delta(student, loss, [x])
    assert len(counts) == 1 + 2 * 2  # every sample of a diagonal Hessian is its trace


def test_what_has_settled_is_shifted_no_more(monkeypatch):
    monkeypatch.setattr(curvature, "TOLERANCE", 0.5)
    seen, sample = [], curvature._Estimate._samples

    def noted(self, active, iteration):
        found = sample(self, active, iteration)
        seen.append((len(active), len(self.surrogate.shifts)))
        return found

    monkeypatch.setattr(curvature._Estimate, "_samples", noted)
    student = slim()
    update_delta(student, loss_of(student), images())
    assert seen[0] == (12, 12)
    assert 12 > seen[2][0] == seen[2][1] > 0
