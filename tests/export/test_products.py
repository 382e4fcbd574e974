"""Whole models by every method and width: files, folding and ONNX; slow."""

from importlib.util import find_spec

import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

import daqakd
from daqakd.export.batchnorm import FoldedNorm
from daqakd.models import build
from daqakd.quant.layers import QuantLayer
from daqakd.quant.operands import QuantInput

from ..helpers.killed import equal
from ..helpers.ties import far_from_ties
from .test_batchnorm import outputs_at, with_statistics
from .test_onnx import checked, kinds, session_of

pytestmark = pytest.mark.slow
METHODS = ["lsq", "pact", "dorefa", "ewgs", "lsqplus", "seq"]
BITS = [2, 3, 4, 8]


def decoder() -> nn.Module:
    """Down by convolutions and up by transposed ones."""
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU()),
        *(nn.ConvTranspose2d(12, 8, 4, 2, 1), nn.BatchNorm2d(8), nn.ReLU()),
        nn.ConvTranspose2d(8, 3, 4, 2, 1),
    )


def vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    model = VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=10)
    nn.init.normal_(model.heads.head.weight, std=0.1)  # zero as built
    return model


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    class Logits(GPT2LMHeadModel):
        def forward(self, input_ids):
            return super().forward(input_ids, use_cache=False).logits

    return Logits(GPT2Config(n_layer=2, n_head=2, n_embd=32, vocab_size=101, n_positions=32))


MODELS = {
    "resnet20": lambda: build("resnet20", 10),
    "mobilenet_v2": lambda: build("mobilenet_v2", 10),
    "vit": vit,
    "decoder": decoder,
    "gpt2": gpt2,
}


def inputs_of(name):
    torch.manual_seed(5)
    return torch.randint(0, 101, (6, 9)) if name == "gpt2" else torch.randn(6, 3, 32, 32)


def student_of(name, method, bits):
    if name == "gpt2" and find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    torch.manual_seed(3)
    options = {"weight_bits": bits, "act_bits": bits, "method": method}
    if name == "gpt2":
        options["embedding_bits"] = bits
    made = daqakd.quantize(with_statistics(MODELS[name]()), **options)
    daqakd.calibrate(made, [inputs_of(name)])
    return made.eval()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", MODELS)
def test_files_and_folding(tmp_path, name, method, bits):
    made, x = student_of(name, method, bits), inputs_of(name)
    expected = made(x)
    for packed in (False, True):
        daqakd.save(made, tmp_path / "a", packed=packed)
        assert torch.equal(daqakd.load(tmp_path / "a", MODELS[name]())(x), expected)
    twin = student_of(name, method, bits)
    twin.load_state_dict(made.state_dict())
    assert torch.equal(twin(x), expected)
    assert equal(twin.state_dict(), made.state_dict())
    if name == "gpt2":  # which has no BatchNorm
        assert torch.equal(daqakd.fold_batchnorm(made)(x), expected)
        return
    folded = daqakd.fold_batchnorm(made.double())  # whose factors are then exact, as are the ties
    norms = [n for n, m in folded.named_modules() if isinstance(m, FoldedNorm)]
    assert len(norms) == {"resnet20": 19, "mobilenet_v2": 52, "decoder": 3, "vit": 0}[name]
    was, now = (outputs_at(m, norms, x) for m in (made, folded))
    for key in was:
        torch.testing.assert_close(now[key], was[key], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", MODELS)
def test_onnx(tmp_path, name, method, bits):
    path, made, x = tmp_path / "a.onnx", student_of(name, method, bits), inputs_of(name)
    daqakd.export_onnx(made, path, x)
    model = checked(path)
    nodes = [node.op_type for node in model.graph.node]
    layers = [m for m in made.modules() if isinstance(m, QuantLayer)]
    readers = [m for m in made.modules() if isinstance(m, QuantInput) and m.act_quantizer]
    codes = [kind for key, kind in kinds(model).items() if key.endswith(".codes")]
    assert len(codes) == len(layers)
    narrow = [m for m in layers if m.weight_quantizer.bits <= 4]
    assert codes.count(TensorProto.INT4) == len(narrow)
    assert codes.count(TensorProto.INT8) == len(layers) - len(narrow)
    assert nodes.count("QuantizeLinear") <= len(readers)  # equal ones of one tensor become one
    if name != "vit":
        assert nodes.count("QuantizeLinear") == len(readers)
    assert nodes.count("DequantizeLinear") >= len(layers) + nodes.count("QuantizeLinear")
    session = session_of(path, exact=True)
    y = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    single, wide = made(x).detach(), made.double()
    exact = wide(x if name == "gpt2" else x.double()).detach().float()
    size = exact.abs().max().item()
    for image, far in enumerate(far_from_ties(wide, x).tolist()):
        near = min((y[image] - one[image]).abs().max().item() for one in (single, exact))
        # else an activation at a tie got the next level, in PyTorch's float32 or in the runtime
        assert near < (1e-4 if far else 0.3) * size, (image, far, near / size)


def test_the_model_file_is_one_that_onnx_reads(tmp_path):
    daqakd.export_onnx(student_of("decoder", "lsq", 4), tmp_path / "a", inputs_of("decoder"))
    assert onnx.load(tmp_path / "a").producer_name
