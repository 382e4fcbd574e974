"""``nn.MultiheadAttention``: torch's results where it passes, quantized projections else."""

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import daqakd
from daqakd.quant import QuantLinear, QuantMultiheadAttention
from daqakd.quant.attention import QuantProjection
from daqakd.quant.grids import quantized_layers, weight_codes, weight_grid
from daqakd.quant.passing import pass_through
from daqakd.quant.weight_cache import WeightCache
from daqakd.train import diagnostics, steadying

from ..helpers.cached import MANY, Calls, require_native
from .test_quant import METHODS

each_method = pytest.mark.parametrize("method", METHODS)
B, L, S, E, H = 3, 5, 4, 8, 2
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch first": {"batch_first": True},
    "no bias": {"bias": False},
    "appended": {"add_bias_kv": True, "add_zero_attn": True},
    "zero": {"add_zero_attn": True, "batch_first": True},
    "separate": {"kdim": 6, "vdim": 7},
    "separate, no bias": {"vdim": 7, "bias": False, "batch_first": True, "add_bias_kv": True},
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def attention(kind: str, **options) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    made = nn.MultiheadAttention(E, H, **KINDS[kind], **options).double()
    for parameter in made.parameters():  # biases start at zero
        nn.init.normal_(parameter, std=0.5)
    return made


def inputs(layer: nn.MultiheadAttention, batched: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Return query, key and value of its layout."""
    torch.manual_seed(1)
    found = []
    for length, width in ((L, E), (S, layer.kdim), (S, layer.vdim)):
        shape = (B, length, width) if layer.batch_first else (length, B, width)
        found.append(torch.randn(shape if batched else (length, width)).double())
    return found[0], found[1], found[2]


def student_of(layer: nn.Module, *batch: Tensor, **options) -> nn.Module:
    given: dict[str, Any] = {"weight_bits": 3, "act_bits": 4, "first_last": "same"} | options
    student = daqakd.quantize(layer, **given)
    names = ("query", "key", "value")
    return daqakd.calibrate(student, dict(zip(names, batch, strict=True)))


def same(found: Any, wanted: Any) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


def masks(batched: bool) -> list[dict[str, Any]]:
    """Return masks of every kind, and none."""
    left_out = torch.zeros(L, S, dtype=torch.bool)
    left_out[1, 2] = left_out[3, 0] = True
    each = torch.rand(B * H if batched else H, L, S) < 0.3
    each[..., 0] = False
    rows = torch.zeros((B, S) if batched else (S,), dtype=torch.bool)
    rows[..., -1] = True
    added = torch.randn(L, S).double()
    return [
        {},
        {"attn_mask": left_out},
        {"attn_mask": added},
        {"attn_mask": each},
        {"key_padding_mask": rows},
        {"key_padding_mask": rows, "attn_mask": left_out},
        {"key_padding_mask": torch.randn(rows.shape).double(), "attn_mask": added},
        {"attn_mask": torch.triu(torch.ones(L, S), 1).bool(), "is_causal": True},
    ]


@each_kind
@pytest.mark.parametrize("batched", [True, False])
def test_passing_it_is_torchs(kind, batched):
    """In full precision, with all masks, weights and layouts."""
    layer = attention(kind).train()
    batch = inputs(layer, batched)
    student = student_of(layer, *batch).train()
    assert type(student) is QuantMultiheadAttention
    pass_through(student, True)
    ways = itertools.product(masks(batched), (True, False), (True, False))
    for mask, need_weights, average in ways:
        options = mask | {"need_weights": need_weights, "average_attn_weights": average}
        same(student(*batch, **options), layer(*batch, **options))
    one = batch[0]
    if layer._qkv_same_embed_dim:
        same(student(one, one, one), layer(one, one, one))
        same(student(one, batch[1], batch[1]), layer(one, batch[1], batch[1]))


def test_passing_gradients_and_dropout_are_torchs():
    layer = attention("batch first", dropout=0.4).train()
    batch = inputs(layer)
    student = student_of(layer, *batch).train()
    pass_through(student, True)
    for model in (layer, student):
        torch.manual_seed(3)
        model(*batch)[0].square().sum().backward()
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(student.get_parameter(name).grad, parameter.grad)
    same(student.eval()(*batch), layer.eval()(*batch))


def by_hand(student: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute by torch's function on quantized tensors, sequence first."""
    alone = "in_proj" in student._modules
    layers = [student.in_proj] * 3 if alone else [student.q_proj, student.k_proj, student.v_proj]
    x = [layer.act_quantizer(x) for layer, x in zip(layers, (query, key, value), strict=True)]
    weights = [layer.weight_quantizer(layer.weight) for layer in dict.fromkeys(layers)]
    scales = [getattr(layer, "output_scale", None) for layer in dict.fromkeys(layers)]
    scales = [1 if scale is None else scale.abs() for scale in scales]
    weights = [w * scale for w, scale in zip(weights, scales, strict=True)]
    bias = student.in_proj_bias.unflatten(0, (len(scales), -1))
    bias = torch.cat([b * scale for b, scale in zip(bias, scales, strict=True)])
    names = ("in_proj_weight",) if alone else ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    own = dict(zip(names, weights, strict=True))
    attend: Any = functional.multi_head_attention_forward
    out, _ = attend(
        *x,
        E,
        H,
        own.pop("in_proj_weight", None),
        bias,
        student.bias_k,
        student.bias_v,
        student.add_zero_attn,
        0.0,
        torch.eye(E).double(),
        None,
        use_separate_proj_weight=not alone,
        **own,
    )
    done: Tensor = student.out_proj(out.transpose(0, 1)).transpose(0, 1)  # as it is called
    return done


@each_method
@pytest.mark.parametrize("kind", ["plain", "appended", "separate"])
def test_values_and_gradients_are_those_of_torchs_function_on_quantized_tensors(method, kind):
    layer = attention(kind)
    batch = inputs(layer)
    student = student_of(layer, *batch, method=method, per_channel=method == "lsq").train()
    twin = copy.deepcopy(student)
    WeightCache.detach(twin)
    found, wanted = student(*batch)[0], by_hand(twin, *batch)
    torch.testing.assert_close(found, wanted)
    pull = torch.randn_like(found)
    (found * pull).sum().backward()
    (wanted * pull).sum().backward()
    for name, parameter in student.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(
            parameter.grad, twin.get_parameter(name).grad, rtol=1e-5, atol=1e-5
        )


def test_one_input_quantizer_for_each_weight():
    for kind, names in (("plain", ["in_proj"]), ("separate", ["q_proj", "k_proj", "v_proj"])):
        layer = attention(kind)
        student = student_of(layer, *inputs(layer), per_channel=True)
        assert layer.state_dict().keys() <= student.state_dict().keys()
        found = quantized_layers(student)
        assert [name for name, _ in found] == ["out_proj", *names]
        for name, one in found[1:]:
            assert one.weight is student.get_parameter(f"{name}_weight")
            assert one.weight_quantizer.step.shape == one.weight.shape[:1]
            assert one.act_quantizer.name == f"{name}.act_quantizer"
            assert weight_codes(one).shape == one.weight.shape
        assert isinstance(student.out_proj, QuantLinear)


def test_summary_counts_and_lists():
    layer = attention("appended")
    query, key, value = inputs(layer)
    student = student_of(layer, query, key, value, first_last="8bit")
    rows = {row.name: row for row in daqakd.summary(student).layers}
    assert list(rows) == ["bias_k", "bias_v", "out_proj", "in_proj"]
    assert (rows["in_proj"].kind, rows["in_proj"].weight_bits) == ("MultiheadAttention", 8)
    assert rows["in_proj"].macs == (L + 2 * S) * B * E * E // L
    assert rows["in_proj"].bytes == 3 * E * E
    assert rows["bias_k"].note.endswith("nn.MultiheadAttention appends it to keys or values")
    taken = daqakd.summary(student).first_last
    assert taken == "first and last layer, by order of registration (8 bits): , out_proj"


@each_kind
@pytest.mark.parametrize("method", MANY)  # of weights
def test_files_and_copies_give_the_same_outputs(kind, method, tmp_path):
    layer = attention(kind).float()
    batch = [x.float() for x in inputs(layer)]
    student = student_of(layer, *batch, method=method, per_channel=method == "lsq").eval()
    with torch.no_grad():
        wanted = student(*batch)[0]
        twin = copy.deepcopy(student)
        assert twin._modules[list(twin._modules)[-1]].owner is twin
        assert torch.equal(twin(*batch)[0], wanted)
        torch.save(student, tmp_path / "whole")
        assert torch.equal(torch.load(tmp_path / "whole", weights_only=False)(*batch)[0], wanted)
        for packed in (True, False)[: 1 + (method == "lsq")]:
            daqakd.save(student, tmp_path / "a", packed=packed)
            assert torch.equal(daqakd.load(tmp_path / "a", layer)(*batch)[0], wanted)


def test_a_packed_file_of_one_bit(tmp_path):
    layer = attention("plain").float()
    batch = [x.float() for x in inputs(layer)]
    student = student_of(layer, *batch, method="dorefa", weight_bits=1).eval()
    daqakd.save(student, tmp_path / "a", packed=True)
    assert torch.equal(daqakd.load(tmp_path / "a", layer)(*batch)[0], student(*batch)[0])


@each_kind
@each_method
def test_weights_alone_come_back_as_torchs_module(kind, method):
    layer = attention(kind)
    batch = inputs(layer)
    student = student_of(layer, *batch, method=method, act_bits=None)
    plain = daqakd.dequantize(student)
    assert type(plain) is nn.MultiheadAttention
    assert plain.state_dict().keys() == layer.state_dict().keys()
    assert vars(plain).keys() - vars(layer).keys() == {"quantized_with"}
    same(plain.train()(*batch), student.train()(*batch))
    same(plain.eval()(*batch), student.eval()(*batch))


def test_codes_kept_for_backward_give_the_same_gradients():
    for kind in ("plain", "separate"):
        layer = attention(kind).float()
        batch = [x.float() for x in inputs(layer)]
        students = [student_of(layer, *batch, save=save) for save in ("values", "codes")]
        for student in students:
            student(*batch)[0].square().sum().backward()
            if kind == "plain":
                one = batch[0]
                student(one, one, one)[0].square().sum().backward()
        for one, other in zip(*(s.parameters() for s in students), strict=True):
            assert torch.equal(one.grad, other.grad)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, q, k, v: m(q, k, v, is_causal=True), "attn_mask: None, but is_causal is a hint"),
        (lambda m, q, k, v: m(q, k, v, attn_mask=torch.ones(2, 2)), r"attn_mask: .*\(5, 4\) or \("),
        (lambda m, q, k, v: m(q, k, v, torch.ones(S, B)), r"key_padding_mask: .*\(3, 4\), got"),
        (
            lambda m, q, k, v: m(q, k, v, attn_mask=torch.ones(L, S, dtype=torch.int)),
            "attn_mask: expected booleans or numbers to add, got torch.int32; cast it",
        ),
        (
            lambda m, q, k, v: m(*[torch.nested.nested_tensor([x[0]]) for x in (q, k, v)]),
            "query: is nested, which only torch's fast path takes",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_what_cannot_be_meant(call, message):
    layer = attention("plain")
    batch = inputs(layer)
    student = student_of(layer, *batch)
    with pytest.raises(daqakd.InputError, match=message):
        call(student, *batch)


class Encoder(nn.Module):
    def __init__(self, **options) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(E, H, 16, batch_first=True, **options)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=not options)
        self.head = nn.Linear(E, 3)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        out: Tensor = self.head(self.encoder(x, src_key_padding_mask=padding)).mean(1)
        return out


@pytest.mark.parametrize("options", [{}, {"norm_first": True}])
def test_torchs_encoder_calls_it_in_training_and_evaluation(options):
    torch.manual_seed(0)
    model, x = Encoder(dropout=0.0, **options), torch.randn(B, L, E)
    student = daqakd.calibrate(daqakd.quantize(model, weight_bits=4, act_bits=4), x)
    assert isinstance(student.encoder.layers[1].self_attn, QuantMultiheadAttention)
    padding = torch.arange(L) >= torch.tensor([[5], [3], [4]])
    for arguments in ((x,), (x, padding)):
        wanted = student.train()(*arguments)
        torch.testing.assert_close(student.eval()(*arguments), wanted)
        with torch.no_grad():
            torch.testing.assert_close(student(*arguments), wanted)
    wanted.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())
    pass_through(student, True)
    torch.testing.assert_close(student.train()(x), model.train()(x))
    assert daqakd.summary(student).uncounted == []


def test_a_decoder_attends_to_its_memory():
    torch.manual_seed(0)
    layer = nn.TransformerDecoderLayer(E, H, 16, dropout=0.0)
    x, memory = torch.randn(L, B, E), torch.randn(S, B, E)
    student = daqakd.quantize(layer, weight_bits=8, act_bits=8)
    daqakd.calibrate(student, {"tgt": x, "memory": memory})
    torch.testing.assert_close(student(x, memory), layer(x, memory), atol=0.1, rtol=0.1)
    pass_through(student, True)
    torch.testing.assert_close(student(x, memory), layer(x, memory))


def test_the_joint_call_quantizes_their_weights():
    require_native()
    x = torch.randn(B, L, E)
    student = daqakd.quantize(Encoder(), weight_bits=3, act_bits=None, first_last="same").eval()
    with Calls() as calls:
        found = student(x)
    assert calls.of["lsq_many_forward"] == 1
    assert calls.of["lsq_forward"] == 0
    WeightCache.detach(student)
    assert torch.equal(student(x), found)


def test_a_vision_transformer_trains():
    models = pytest.importorskip("torchvision.models")
    model = models.VisionTransformer(16, 4, 2, 2, 8, 16, num_classes=5)
    nn.init.normal_(model.heads.head.weight)  # torchvision's is zero
    x = torch.randn(2, 3, 16, 16)
    student = daqakd.calibrate(daqakd.quantize(model, weight_bits=4, act_bits=4), x).train()
    attentions = [m for m in student.modules() if isinstance(m, nn.MultiheadAttention)]
    assert len(attentions) == 2
    assert all(type(m) is QuantMultiheadAttention for m in attentions)
    optimizer = torch.optim.SGD(daqakd.param_groups(student, 0.1, 0.0))
    before = attentions[0].in_proj_weight.detach().clone()
    student(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())
    optimizer.step()
    assert not torch.equal(attentions[0].in_proj_weight, before)
    fused = daqakd.fuse(student).eval()
    torch.testing.assert_close(fused(x), student.eval()(x))
    program = torch.export.export(student, (x,))
    assert not [n for n in program.graph.nodes if "daqakd" in str(n.target)]
    torch.testing.assert_close(program.module()(x), student(x))


class Reads(nn.Module):
    """Computes with an attention's weights past it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.attention = nn.Linear(E, E), nn.MultiheadAttention(E, H)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) @ self.attention.in_proj_weight[:E]


class Own(nn.MultiheadAttention):
    def forward(self, *args: Any, **options: Any) -> Any:
        return super().forward(*args, **options)


def named(student: nn.Module) -> dict[str, str]:
    return {
        row.name: row.note.removeprefix("not quantized: ") for row in daqakd.summary(student).layers
    }


def test_what_stays_whole_is_listed():
    inner = "its nn.MultiheadAttention stays whole and reads its weight directly"
    own = nn.Sequential(nn.Linear(E, E), Own(E, H))
    for model, name, why in (
        (Reads(), "attention", "Reads reads its weight directly"),
        (own, "1", "Own has its own forward"),
    ):
        notes = named(daqakd.quantize(model, weight_bits=4, act_bits=4))
        assert notes[f"{name}.in_proj_weight"] == why
        assert notes[f"{name}.out_proj"] == inner
    computed = nn.Sequential(nn.Linear(E, E), nn.MultiheadAttention(E, H))
    nn.utils.parametrizations.weight_norm(computed[1], "in_proj_weight")
    student = daqakd.quantize(computed, weight_bits=4, act_bits=4)
    assert not isinstance(student[1], QuantMultiheadAttention)
    assert named(student)["1.out_proj"] == inner


def test_names_in_exclude_and_overrides():
    model = nn.Sequential(nn.Linear(E, E), nn.MultiheadAttention(E, H), nn.Linear(E, E))
    whole = daqakd.quantize(model, weight_bits=4, act_bits=4, exclude="1")
    assert type(whole[1]) is nn.MultiheadAttention
    assert not isinstance(whole[1].out_proj, QuantLinear)
    half = daqakd.quantize(
        model, weight_bits=4, act_bits=4, exclude="1.out_proj", overrides={"1": {"weight_bits": 8}}
    )
    assert half[1].in_proj.weight_quantizer.bits == 8
    assert not isinstance(half[1].out_proj, QuantLinear)
    with pytest.raises(daqakd.InputError, match=r"quantized already \(0\.in_proj is a"):
        daqakd.quantize(nn.Sequential(half[1]), weight_bits=2, act_bits=2)


def test_replicas_compute_with_their_own_weights():
    layer = attention("plain")
    batch = inputs(layer)
    student = student_of(layer, *batch).eval()
    replica = student._replicate_for_data_parallel()
    for name, parameter in student.named_parameters(recurse=False):
        setattr(replica, name, 2 * parameter.detach())
    for name, child in student.named_children():
        twin = child._replicate_for_data_parallel()
        for part, store in child.named_children():
            twin._modules[part] = store
        for part, parameter in child.named_parameters(recurse=False):
            setattr(twin, part, parameter.detach())
        replica._modules[name] = twin
    doubled = copy.deepcopy(student)
    doubled.load_state_dict(
        {
            **student.state_dict(),
            **{n: 2 * p for n, p in layer.named_parameters() if not n.startswith("out")},
        }
    )
    same(replica(*batch), doubled(*batch))


@pytest.mark.parametrize(("kind", "wanted"), [("plain", (1, 2, 3)), ("separate", None)])
def test_an_input_is_quantized_once(kind, wanted):
    layer = attention(kind)
    query, key, value = inputs(layer)
    student = student_of(layer, query, key, value)
    calls: list[Tensor] = []
    for one in student.modules():
        if isinstance(one, QuantProjection):
            one.act_quantizer.register_forward_hook(lambda _, args, out: calls.append(args[0]))
    if wanted is None:
        student(query, key, value)
        assert [x.shape for x in calls] == [query.shape, key.shape, value.shape]
        return
    for batch, count in zip(
        ((query, query, query), (query, key, key), (query, key, value)), wanted, strict=True
    ):
        calls.clear()
        student(*batch)
        assert len(calls) == count


def test_oscillating_weights_are_held_and_told():
    student = daqakd.quantize(Encoder(), weight_bits=3, act_bits=None, per_channel=True)
    layers = steadying._layers_for("freeze_oscillating", student)
    assert sum(isinstance(layer, QuantProjection) for layer in layers) == 2
    part = steadying.Freezing(layers, -1.0)
    part.before_epoch(0)
    before = [weight_codes(layer) for layer in layers]
    part.after_step(1)  # the frequency 0 is above the threshold
    for layer, codes in zip(layers, before, strict=True):
        torch.testing.assert_close(layer.weight.detach(), weight_grid(layer).levels(codes))
    x = torch.randn(B, L, E)
    daqakd.calibrate(student, x)
    told = diagnostics.Diagnostics(student, lambda: x, print)
    told.before_epoch(0)
    student(x).square().sum().backward()
    told.after_backward(1)
    told.end_epoch(0, None)
    name = "encoder.layers.0.self_attn.in_proj.weight_quantizer"
    assert told.detail["quantizers"][name]["oscillating"] == 0.0


def test_first_and_last_in_full_precision():
    model = nn.Sequential(nn.MultiheadAttention(E, H), nn.Linear(E, E), nn.MultiheadAttention(E, H))
    student = daqakd.quantize(model, weight_bits=4, act_bits=4, first_last="fp")
    assert type(student[0]) is nn.MultiheadAttention
    assert not isinstance(student[0].out_proj, QuantLinear)
    assert type(student[2]) is QuantMultiheadAttention
    assert not isinstance(student[2].out_proj, QuantLinear)
