"""``export_onnx``: integer weights, Q/DQ around every layer, and onnxruntime's outputs."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from torch import nn

import daqakd
from daqakd import InputError
from daqakd.export import OnnxModel, export_program
from daqakd.export.qdq import IntegerWeight
from daqakd.models import build
from daqakd.quant.layers import QuantLayer
from daqakd.quant.seq import SEQWeight

from ..helpers.small import SmallNet
from ..helpers.ties import far_from_ties
from .test_batchnorm import student, with_statistics

torch.manual_seed(0)
IMAGES = torch.randn(12, 3, 8, 8)
METHODS = {
    "lsq": {},
    "per_channel": {"per_channel": True},
    "pact": {"method": "pact"},
    "dorefa": {"method": "dorefa"},
    "ewgs": {"method": "ewgs"},
    "mqbench": {"flavour": "mqbench"},
    "lsqplus": {"method": "lsqplus"},
    "seq": {"method": "seq"},
    "seq-3": {"method": "seq", "weight_levels": 3},
    "seq-channels": {"method": "seq", "per_channel": True},
}


def small(bits, images=IMAGES, **options):
    options = {"weight_bits": bits, "act_bits": bits, "first_last": "same"} | options
    return student(with_statistics(SmallNet()), images, **options)


def session_of(path, exact):
    """Return onnxruntime's session; an exact one keeps every node as it is."""
    options = onnxruntime.SessionOptions()
    if exact:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])


def run(path, images, exact=True):
    session = session_of(path, exact)
    (given,) = session.get_inputs()
    return torch.from_numpy(session.run(None, {given.name: images.numpy()})[0])


def checked(path):
    """Return a file's model, valid, with inferred shapes."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    return model


def assert_same(path, made, images=IMAGES, exact=True):
    """Outputs are the student's on all images without an activation at a tie, most of them."""
    y, expected = run(path, images, exact), made(images).detach()
    far = far_from_ties(made, images)
    assert far.sum() >= len(images) // 2
    torch.testing.assert_close(y[far], expected[far], rtol=1e-5, atol=1e-5)


def kinds(model):
    return {t.name: t.data_type for t in model.graph.initializer}


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
def test_outputs_and_nodes(tmp_path, options, bits):
    path, made = tmp_path / "a.onnx", small(bits, **options)
    daqakd.export_onnx(made, path, IMAGES)
    model = checked(path)
    names = [node.op_type for node in model.graph.node]
    assert (names.count("QuantizeLinear"), names.count("DequantizeLinear")) == (3, 6)
    assert names.count("BatchNormalization") == 0
    if options.get("method") not in ("pact", "dorefa"):  # whose lowest code of 8 bits is -127
        assert names.count("Clip") == (3 if bits < 8 else 0)
    kind = TensorProto.INT8 if bits == 8 else TensorProto.INT4
    found = {n: k for n, k in kinds(model).items() if n.endswith(".codes")}
    assert found == {f"{n}.weight_quantizer.codes": kind for n in ("conv1", "conv2", "fc")}
    assert not any(n.endswith(".weight") for n in kinds(model))
    assert_same(path, made, exact=bits == 8)
    assert run(path, IMAGES[:1]).shape == (1, 3)  # the batch is open


@pytest.mark.parametrize("bits", [1, 4])
def test_dorefa_weights_beside_other_activations(tmp_path, bits):
    made = small(4, weight_bits=bits, weight_method="dorefa", rescale="off")
    daqakd.export_onnx(made, tmp_path / "a", IMAGES)
    assert_same(tmp_path / "a", made)


@pytest.mark.parametrize("options", [{"act_bits": None}, {"weight_bits": None}], ids=str)
def test_one_of_the_two_alone(tmp_path, options):
    made = small(4, **options)
    daqakd.export_onnx(made, tmp_path / "a", IMAGES)
    names = [node.op_type for node in checked(tmp_path / "a").graph.node]
    assert names.count("DequantizeLinear") == 3
    assert_same(tmp_path / "a", made)


def test_without_folding_and_at_another_opset(tmp_path):
    made = small(4, method="ewgs")
    daqakd.export_onnx(made, tmp_path / "a", IMAGES, fold_batchnorm=False, opset=18)
    model = checked(tmp_path / "a")
    assert [entry.version for entry in model.opset_import if not entry.domain] == [18]
    assert "BatchNormalization" in [node.op_type for node in model.graph.node]
    assert TensorProto.INT4 not in kinds(model).values()
    assert_same(tmp_path / "a", made)


def test_a_fixed_batch_and_signed_inputs(tmp_path):
    made = small(8)
    daqakd.export_onnx(made, tmp_path / "a", IMAGES, dynamic_batch=False)
    (given,) = checked(tmp_path / "a").graph.input
    assert [d.dim_value for d in given.type.tensor_type.shape.dim] == list(IMAGES.shape)
    assert_same(tmp_path / "a", made)


class Two(nn.Module):
    """Two inputs, one of them by name."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Linear(4, 5)

    def forward(self, a, *, b):
        return torch.relu(self.first(a)) + self.second(b)


class Swapped(Two):
    def forward(self, a, b):
        return super().forward(a, b=b)


@pytest.mark.parametrize("kind", [dict, tuple])
def test_several_inputs(tmp_path, kind):
    a, b = torch.randn(1, 3, 6), torch.randn(1, 3, 4)
    made = daqakd.quantize(Swapped(), weight_bits=4, act_bits=4, first_last="same")
    daqakd.calibrate(made, [{"a": a, "b": b}])
    example = {"a": a, "b": b} if kind is dict else (a, b)
    daqakd.export_onnx(made.eval(), tmp_path / "a", example)
    found = OnnxModel(tmp_path / "a")
    assert found.names == ["a", "b"]
    a, b = torch.randn(4, 3, 6), torch.randn(4, 3, 4)
    torch.testing.assert_close(found(a, b), made(a, b).detach(), rtol=1e-5, atol=1e-5)


class Attending(nn.Module):
    """An embedding, attention to itself and to others, and a placed sum."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.itself = nn.MultiheadAttention(8, 2, batch_first=True)
        self.others = nn.MultiheadAttention(8, 2, kdim=6, vdim=6, batch_first=True)
        self.add, self.fc = daqakd.nn.QuantAdd(), nn.Linear(8, 3)

    def forward(self, tokens, other):
        x = self.embedding(tokens)
        x = self.add(x, self.itself(x, x, x, need_weights=False)[0])
        return self.fc(x + self.others(x, other, other, need_weights=False)[0])


@pytest.mark.parametrize("method", ["lsq", "pact", "ewgs"])
def test_embeddings_attention_and_placed_sums(tmp_path, method):
    tokens, other = torch.randint(0, 11, (6, 5)), torch.randn(6, 4, 6)
    options = {"weight_bits": 4, "act_bits": 8, "embedding_bits": 4, "first_last": "same"}
    made = daqakd.quantize(Attending(), method=method, **options)
    daqakd.calibrate(made, [{"tokens": tokens, "other": other}])
    daqakd.export_onnx(made.eval(), tmp_path / "a", (tokens, other))
    names = [node.op_type for node in checked(tmp_path / "a").graph.node]
    # of nine quantizers, those of the first sum and of keys and values may equal their neighbours
    assert 7 <= names.count("QuantizeLinear") <= 9
    # of the embedding, two output projections, a joint one, three separate ones, the last layer
    weights = sum(n.endswith(".codes") for n in kinds(checked(tmp_path / "a")))
    assert weights == 8
    assert names.count("QuantizeLinear") + 8 <= names.count("DequantizeLinear") <= 9 + 8
    found = OnnxModel(tmp_path / "a")(tokens, other)
    torch.testing.assert_close(found, made(tokens, other).detach(), rtol=1e-2, atol=2e-2)


CONVOLUTIONS = {
    "conv1d": (nn.Conv1d(3, 4, 3), (3, 9)),
    "conv3d": (nn.Conv3d(2, 4, 2), (2, 4, 4, 4)),
    "transposed1d": (nn.ConvTranspose1d(3, 4, 3), (3, 9)),
    "transposed2d": (nn.ConvTranspose2d(4, 4, 3, 2, groups=2), (4, 5, 5)),
}


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_other_convolutions(tmp_path, name, per_channel):
    layer, shape = CONVOLUTIONS[name]
    model, images = nn.Sequential(layer, nn.Flatten()), torch.randn(12, *shape)
    options = {"weight_bits": 4, "act_bits": 4, "first_last": "same", "per_channel": per_channel}
    made = student(model, images, **options)
    daqakd.export_onnx(made, tmp_path / "a", images)
    checked(tmp_path / "a")
    assert_same(tmp_path / "a", made, images, exact=False)


@pytest.mark.parametrize(("name", "bits"), [("mobilenet_v2", 4), ("vgg8", 8)])
def test_size_is_that_of_the_codes(tmp_path, name, bits):
    made = student(with_statistics(build(name, 5)), weight_bits=bits, first_last="same")
    daqakd.export_onnx(made, tmp_path / "a", torch.randn(2, 3, 32, 32))
    layers = [m for m in made.modules() if isinstance(m, QuantLayer)]
    wanted = sum(layer.weight.numel() for layer in layers) * bits / 8
    wanted += sum(8 * len(layer.weight) for layer in layers)  # a scale and a bias per channel
    assert 1 <= (tmp_path / "a").stat().st_size / wanted < 1.1
    names = [node.op_type for node in checked(tmp_path / "a").graph.node]
    assert names.count("QuantizeLinear") == len(layers)
    assert names.count("DequantizeLinear") == 2 * len(layers)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("method", ["lsq", "dorefa", "ewgs", "seq"])
@pytest.mark.parametrize("opset", [18, 21])
def test_integers_are_the_values(bits, method, opset):
    """Every code, with a scale above and one below 0 per channel."""
    if method == "lsq" and bits == 1:
        pytest.skip("LSQ has no 1-bit weights")
    layer = nn.Linear(2 ** (bits + 2) + 3, 4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-0.9, 0.9, layer.in_features))
    options = {"weight_bits": bits, "act_bits": None, "weight_method": method, "rescale": "off"}
    made = daqakd.quantize(nn.Sequential(layer, nn.BatchNorm1d(4)), first_last="same", **options)
    made[1].weight.data.copy_(torch.tensor([2.0, -3.0, 0.0, 1.0]))
    folded = daqakd.fold_batchnorm(made.eval())
    quantizer = folded[0].weight_quantizer
    if method in ("lsq", "seq"):
        quantizer.inner.step.data.fill_(1.8 / 2**bits)
    elif method == "ewgs":
        quantizer.inner.lower.data.fill_(-0.9)
        quantizer.inner.upper.data.fill_(0.9)
    given = IntegerWeight(quantizer, folded[0].weight, 0, opset)
    low = -(2 ** (given.bits - 1))
    assert low <= given.codes.min().item() <= given.codes.max().item() < -low
    assert given.bits == (4 if opset == 21 and bits <= 4 else 8)
    assert bool((given.scale >= 0).all())
    zero = 0 if given.zero is None else given.zero.view(-1, 1)
    values = (given.codes.float() - zero) * given.scale.view(-1, 1)
    values = values if given.half_step is None else values + given.half_step
    torch.testing.assert_close(values, quantizer(folded[0].weight), rtol=1e-6, atol=1e-6)
    assert len(quantizer.codes(folded[0].weight).unique()) == 2**bits


@pytest.mark.parametrize(
    ("bits", "levels"), [(2, 2), (2, 3), (4, 9), (4, 10), (8, 129), (8, 200), (8, 201)]
)
@pytest.mark.parametrize("opset", [18, 21])
def test_integers_of_some_levels_are_the_values(bits, levels, opset):
    """An odd number around 0, an even one at halves, and codes that do not fill their bits."""
    w = torch.linspace(-0.9, 0.9, 800).view(2, 400)
    quantizer = SEQWeight(w, bits, per_channel=True, levels=levels)
    quantizer.step.data.fill_(1.8 / levels)
    given = IntegerWeight(quantizer, w, 0, opset)
    values = given.codes.float() * given.scale.view(-1, 1)
    values = values if given.half_step is None else values + given.half_step
    torch.testing.assert_close(values, quantizer(w), rtol=1e-6, atol=1e-6)
    assert len(given.codes.unique()) == levels


def test_a_trained_program_needs_no_package(tmp_path):
    import subprocess
    import sys

    made = small(4)
    export_program(made, tmp_path / "a.pt2", IMAGES)
    torch.save((IMAGES, made(IMAGES).detach()), tmp_path / "x.pt")
    code = (
        "import torch, sys; program = torch.export.load('a.pt2').module()\n"
        "x, y = torch.load('x.pt'); z = program(x); assert program(x[:1]).shape == (1, 3)\n"
        "torch.testing.assert_close(z, y, rtol=1e-5, atol=1e-5)\n"
        "assert 'daqakd' not in sys.modules"
    )
    command = [sys.executable, "-P", "-c", code]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=120)


def test_what_is_given_is_not_changed(tmp_path):
    made = daqakd.fuse(small(4, method="ewgs"))
    before = {k: v.clone() for k, v in made.state_dict().items()}
    expected = made(IMAGES)
    daqakd.export_onnx(made, tmp_path / "a", IMAGES)
    assert torch.equal(made(IMAGES), expected)
    assert all(torch.equal(v, before[k]) for k, v in made.state_dict().items())


class Branching(SmallNet):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)


def test_sentences(tmp_path, monkeypatch):
    path, made = tmp_path / "a", small(4)
    with pytest.raises(InputError, match="student: has no quantized layer"):
        daqakd.export_onnx(SmallNet(), path, IMAGES)
    with pytest.raises(InputError, match="opset: expected an integer from 18 on, got 17"):
        daqakd.export_onnx(made, path, IMAGES, opset=17)
    with pytest.raises(InputError, match="fold_batchnorm: "):
        daqakd.export_onnx(made, path, IMAGES, fold_batchnorm=1)
    with pytest.raises(InputError, match="example: expected a batch as a tensor"):
        daqakd.export_onnx(made, path, [IMAGES, "x"])
    fresh = daqakd.quantize(SmallNet(), weight_bits=4, act_bits=4)
    with pytest.raises(InputError, match=r"conv1.act_quantizer: is not calibrated"):
        daqakd.export_onnx(fresh, path, IMAGES)
    with pytest.raises(InputError, match="scales by the batch's maximum"):
        daqakd.export_onnx(small(4, method="dorefa", flavour="mqbench"), path, IMAGES)
    branching = student(Branching(), IMAGES)
    with pytest.raises(InputError, match=r"torch\.onnx cannot export it"):
        daqakd.export_onnx(branching, path, IMAGES)
    with pytest.raises(InputError, match=r"torch\.export cannot take it"):
        export_program(branching, path, IMAGES)
    assert not path.exists()
    with pytest.raises(InputError, match=r"is no file; write one by daqakd\.export_onnx"):
        OnnxModel(path)
    path.write_bytes(np.arange(99, dtype=np.uint8).tobytes())
    with pytest.raises(InputError, match="onnxruntime cannot run"):
        OnnxModel(path)
    monkeypatch.setattr("daqakd.export.onnx_file.find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"needs onnx and onnxscript; pip install 'daqakd\[onnx\]'"
    ):
        daqakd.export_onnx(made, path, IMAGES)
