"""Embeddings: quantized where that is asked for, tied or not, and left whole where it cannot be."""

import copy

import pytest
import torch
from torch import Tensor, nn

import daqakd
from daqakd.quant import QuantEmbedding, QuantLinear
from daqakd.quant.grids import weight_codes

from ..helpers.cached import MANY
from .test_quant import METHODS

WORDS, WIDTH = 11, 6
X = torch.tensor([[1, 0, 3, 10], [2, 2, 0, 7]])
each_method = pytest.mark.parametrize("method", METHODS)


class Language(nn.Module):
    """Embeddings of words and places, a layer, and an output layer that may be tied."""

    def __init__(self, tied: bool = True, **options) -> None:
        super().__init__()
        self.wte = nn.Embedding(WORDS, WIDTH, padding_idx=0, **options)
        self.wpe = nn.Embedding(4, WIDTH)
        self.body = nn.Linear(WIDTH, WIDTH)
        self.lm_head = nn.Linear(WIDTH, WORDS, bias=False)
        if tied:
            self.lm_head.weight = self.wte.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.wte(x) + self.wpe.weight[: x.shape[1]] * 0 + self.wpe(torch.arange(x.shape[1]))
        out: Tensor = self.lm_head(torch.relu(self.body(x)))
        return out


class Words(Language):
    """One that does not read a weight by itself."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.wte(x) + self.wpe(torch.arange(x.shape[1]))
        out: Tensor = self.lm_head(torch.relu(self.body(x)))
        return out


def student_of(tied: bool = True, **options) -> nn.Module:
    torch.manual_seed(0)
    given: dict = {"weight_bits": 4, "act_bits": 4, "embedding_bits": 3} | options
    return daqakd.calibrate(daqakd.quantize(Words(tied), **given), X)


def rows(student: nn.Module) -> dict:
    return {row.name: row for row in daqakd.summary(student).layers}


def test_they_stay_whole_where_they_are_not_asked_for():
    for options in ({}, {"embedding_bits": 32}, {"overrides": {"*": {"weight_bits": 3}}}):
        student = daqakd.quantize(Words(), weight_bits=4, act_bits=4, **options)
        assert type(student.wte) is type(student.wpe) is nn.Embedding
        assert student.lm_head.weight is student.wte.weight
    note = "not quantized: left in full precision; see embedding_bits="
    assert rows(student)["wte"].note == rows(student)["wpe"].note == note


def test_widths_first_and_last():
    student = student_of(overrides={"wpe": {"embedding_bits": 8}}, exclude="body")
    found = {n: (r.kind, r.weight_bits, r.act_bits) for n, r in rows(student).items()}
    assert found == {
        "wte": ("Embedding", 3, 32),
        "wpe": ("Embedding", 8, 32),
        "body": ("Linear", 32, 32),
        "lm_head": ("Linear", 8, 8),
    }
    summary = daqakd.summary(student)
    assert "by order of registration (8 bits): body, lm_head" in summary.first_last
    assert "by order of the calibration pass" not in summary.first_last
    assert summary.uncounted == []
    assert rows(student)["wte"].bytes == (WORDS * WIDTH * 3 + 7) // 8
    assert not student.wte.weight_quantizer.uniform
    assert type(student_of(exclude=["w?e"]).wte) is nn.Embedding


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedding_bits": 9}, "^embedding_bits: expected an integer from 1 to 8, got 9"),
        ({"embedding_bits": 1}, "^embedding_bits: 1 bit has no positive code for LSQ's signed"),
        (
            {"embedding_bits": 1, "method": "dorefa", "flavour": "mqbench"},
            "^embedding_bits: 1 bit has no positive code on the signed grid",
        ),
        (
            {"overrides": {"w?e": {"weight_bits": 4}}},
            "wpe has no weight_bits; its widths are given by embedding_bits, so",
        ),
        (
            {"overrides": {"body": {"embedding_bits": 4}}},
            "body has no embedding_bits; its widths are given by weight_bits and act",
        ),
    ],
)
def test_what_cannot_be_meant(options, message):
    with pytest.raises(daqakd.InputError, match=message):
        student_of(**options)


@pytest.mark.parametrize("per_channel", [False, True])
def test_values_and_gradients_are_those_of_the_formula(per_channel):
    torch.manual_seed(0)
    layer = nn.Embedding(WORDS, WIDTH, padding_idx=2, scale_grad_by_freq=True).double()
    student = daqakd.quantize(
        layer, weight_bits=None, act_bits=None, embedding_bits=3, per_channel=per_channel
    )
    assert isinstance(student, QuantEmbedding)
    s = student.weight_quantizer.step.detach().double().requires_grad_()
    assert s.shape == ((WORDS,) if per_channel else (1,))
    w = layer.weight.detach().requires_grad_()
    g = (w.numel() / len(s) * 3) ** -0.5
    by = ((s - s * g).detach() + s * g)[:, None] if per_channel else (s - s * g).detach() + s * g
    ratio = (w / by).clamp(-4, 3)
    values = (ratio + (ratio.round() - ratio).detach()) * by
    wanted = nn.functional.embedding(X, values, 2, scale_grad_by_freq=True)
    pull = torch.randn_like(wanted)
    (wanted * pull).sum().backward()
    found = student(X)
    torch.testing.assert_close(found, wanted)
    (found * pull).sum().backward()
    torch.testing.assert_close(student.weight.grad, w.grad)
    torch.testing.assert_close(student.weight_quantizer.step.grad.double(), s.grad)
    assert not student.weight.grad[2].any(), "the row of padding has no gradient"
    assert not found[X == 2].any(), "zero stays zero"


@each_method
def test_every_method_trains(method):
    student = student_of(method=method).train()
    scale = student.wte.output_scale
    weight = student.wte.weight_quantizer(student.wte.weight) * (1 if scale is None else scale)
    torch.testing.assert_close(student.wte(X), weight[X])
    assert student.wte.act_quantizer is None
    optimizer = torch.optim.SGD(daqakd.param_groups(student, 0.1, 0.0))
    before = student.wte.weight.detach().clone()
    student(X).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())
    optimizer.step()
    assert not torch.equal(student.wte.weight, before)


def test_a_tied_weight_gets_the_gradients_of_both_layers():
    student = student_of()
    assert student.wte.weight is student.lm_head.weight
    assert student.wte.weight_quantizer.bits != student.lm_head.weight_quantizer.bits
    student(X).square().sum().backward()
    apart = copy.deepcopy(student)
    apart.zero_grad()
    apart.lm_head.weight = nn.Parameter(apart.wte.weight.detach().clone())
    apart(X).square().sum().backward()
    both = apart.wte.weight.grad + apart.lm_head.weight.grad
    torch.testing.assert_close(student.wte.weight.grad, both)
    for part in ("wte", "lm_head"):
        steps = [getattr(m, part).weight_quantizer.step.grad for m in (student, apart)]
        torch.testing.assert_close(*steps)


@pytest.mark.parametrize("method", MANY)  # of weights
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("whole", ["wte", "lm_head", "wpe"])
def test_files_and_copies_give_the_same_outputs(method, tied, whole, tmp_path):
    student = student_of(tied, method=method, exclude=whole, per_channel=method == "lsq").eval()
    wanted = student(X)
    assert torch.equal(copy.deepcopy(student)(X), wanted)
    for packed in (True, False):
        daqakd.save(student, tmp_path / "a", packed=packed)
        found = daqakd.load(tmp_path / "a", Words(tied))
        assert torch.equal(found(X), wanted), packed
        assert packed or (found.wte.weight is found.lm_head.weight) == tied
    if not isinstance(student.wte, QuantEmbedding):
        return
    assert weight_codes(student.wte).shape == (WORDS, WIDTH)


@each_method
def test_weights_alone_come_back_as_the_plain_layer(method):
    student = student_of(method=method, act_bits=None)
    plain = daqakd.dequantize(student)
    assert type(plain.wte) is nn.Embedding
    assert plain.state_dict().keys() == Words().state_dict().keys()
    torch.testing.assert_close(plain(X), student(X))


def test_exported():
    student = student_of().eval()
    program = torch.export.export(student, (X,))
    assert not [n for n in program.graph.nodes if "daqakd" in str(n.target)]
    torch.testing.assert_close(program.module()(X), student(X))


def test_deltas_by_the_hessian_pass_over_indices():
    student = student_of(method="ewgs", delta="hessian")
    found = daqakd.update_delta(student, lambda x: student(x).square().mean(), [X])
    assert "wte.weight_quantizer" in found


@pytest.mark.parametrize(
    ("layer", "note"),
    [
        (nn.Embedding(9, 4, max_norm=1.0), "its max_norm changes its weight in the forward pass"),
        (nn.Embedding(9, 4, sparse=True), "its gradients are sparse, which quantizers' are not"),
        (nn.EmbeddingBag(9, 4), "EmbeddingBag looks up and reduces in one op"),
        (nn.LSTM(9, 4), "LSTM hands its weights and its state to one op for all gates"),
        (nn.GRU(9, 4), "GRU hands its weights and its state to one op for all gates"),
        (nn.Bilinear(2, 3, 4), "Bilinear multiplies two inputs by its weight in one op"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)
def test_what_stays_whole_is_listed(layer, note):
    model = nn.Sequential(layer, nn.Linear(4, 2))
    student = daqakd.quantize(model, weight_bits=4, act_bits=4, embedding_bits=4)
    assert type(student[0]) is type(layer)
    assert isinstance(student[1], QuantLinear)
    notes = [row.note for row in daqakd.summary(student).layers]
    assert all(n.startswith(f"not quantized: {note}") for n in notes[:-1])
    assert len(notes) > 1
    assert notes[-1] == ""


def test_an_embedding_that_its_model_reads_stays_whole():
    student = daqakd.quantize(Language(), weight_bits=4, act_bits=4, embedding_bits=4)
    assert type(student.wpe) is nn.Embedding
    assert isinstance(student.wte, QuantEmbedding)
    assert rows(student)["wpe"].note == "not quantized: Language reads its weight directly"
