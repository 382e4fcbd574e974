"""The packed student: codes and back bit for bit, its size, and what a damaged file says."""

import json

import pytest
import torch

import daqakd
from daqakd._errors import InputError
from daqakd._files import write_tensors
from daqakd.export import packed
from daqakd.functional import dorefa_weight
from daqakd.quant.seq import SEQWeight
from daqakd.quant.weights import DoReFaWeight, EWGSWeight, LSQWeight
from daqakd.train.store import load_model, read_model_file, save_model, save_packed

from ..helpers.small import SmallNet, small_dataset

MODEL = "tests.helpers.small:small_net"
RECIPES = {
    "lsq": {"method": "lsq"},
    "lsq-channel": {"method": "lsq", "per_channel": True, "first_last": "same"},
    "pact": {"method": "pact", "first_last": "fp"},
    "dorefa": {"method": "dorefa"},
    "dorefa-1": {"method": "dorefa", "weight_bits": 1, "first_last": "same"},
    "dorefa-off": {"method": "dorefa", "rescale": "off"},
    "ewgs": {"method": "ewgs"},
    "ewgs-1": {"method": "ewgs", "weight_bits": 1},
    "seq": {"method": "seq"},
    "seq-3": {"method": "seq", "weight_levels": 3},
    "weights-only": {"method": "lsq", "act_bits": None},
}
WEIGHT = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(1))
QUANTIZERS = {
    "lsq": lambda w, bits: LSQWeight(w, bits, per_channel=False),
    "lsq-channel": lambda w, bits: LSQWeight(w, bits, per_channel=True),
    "dorefa": lambda w, bits: DoReFaWeight(w, bits, rescale=False),
    "dorefa-rescaled": lambda w, bits: DoReFaWeight(w, bits, rescale=True),
    "ewgs": lambda w, bits: EWGSWeight(w, bits, 0.0),
    "seq": lambda w, bits: SEQWeight(w, bits, per_channel=False),
    "seq-channel": lambda w, bits: SEQWeight(w, bits, per_channel=True),
}


def as_bits(x: torch.Tensor) -> torch.Tensor:
    return x.detach().contiguous().view(torch.int32)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("name", QUANTIZERS)
def test_codes_give_the_values_back(name, bits):
    if name.startswith("lsq") and bits == 1:
        pytest.skip("LSQ's signed weights have at least 2 bits")
    quantizer = QUANTIZERS[name](WEIGHT, bits)
    for w in (WEIGHT, 100 * WEIGHT, torch.zeros_like(WEIGHT), -WEIGHT.abs()):
        codes = quantizer.codes(w)
        assert codes.dtype == torch.uint8
        assert codes.shape == w.shape
        assert int(codes.max()) < 2**bits
        again = quantizer.from_codes(codes, quantizer.magnitude(w))
        assert torch.equal(as_bits(again), as_bits(quantizer(w)))
    assert quantizer.codes(WEIGHT).unique().numel() > 1


@pytest.mark.parametrize("bits", [1, 2, 8])
@pytest.mark.parametrize("name", [name for name in QUANTIZERS if "seq" not in name])
def test_codes_give_back_what_one_call_for_all_weights_gives(name, bits):
    """That is how a whole student quantizes; a packed file is written weight by weight."""
    if name.startswith("lsq") and bits == 1:
        pytest.skip("LSQ's signed weights have at least 2 bits")
    generator = torch.Generator().manual_seed(2)
    weights = [torch.randn(n, 3, 3, generator=generator) for n in (*range(1, 40), 911)]
    quantizers = [QUANTIZERS[name](w, bits) for w in weights]
    together = type(quantizers[0]).together(quantizers, weights)()
    for quantizer, w, y in zip(quantizers, weights, together, strict=True):
        again = quantizer.from_codes(quantizer.codes(w), quantizer.magnitude(w))
        assert torch.equal(as_bits(again), as_bits(quantizer.finish(y)))


@pytest.mark.parametrize("step", [0.0, -1.0, 2.0**-40])
def test_codes_of_a_step_below_the_smallest(step):
    quantizer = LSQWeight(WEIGHT, 3, per_channel=False)
    quantizer.step.data.fill_(step)
    again = quantizer.from_codes(quantizer.codes(WEIGHT))
    assert torch.equal(as_bits(again), as_bits(quantizer(WEIGHT)))


def test_one_bit_signs_keep_their_mean():
    magnitude = DoReFaWeight(WEIGHT, 1, rescale=False).magnitude(WEIGHT)
    assert magnitude == dorefa_weight(WEIGHT, bits=1).max()


def saved(folder, model=MODEL, net=SmallNet, **recipe):
    """Write a student file and its packed form; return both."""
    recipe = {"weight_bits": 2, "act_bits": 3, **recipe}
    torch.manual_seed(3)
    student = daqakd.quantize(net(), **recipe)
    daqakd.calibrate(student, torch.randn(8, 3, 16, 16))
    save_model(folder / "student.safetensors", student, model, small_dataset(), recipe)
    file = read_model_file(folder, "student")
    save_packed(folder / "student.packed.safetensors", file, MODEL)
    return file, read_model_file(folder, "student.packed")


@pytest.mark.parametrize("name", RECIPES)
def test_packed_student_gives_the_same_logits(name, tmp_path):
    file, small = saved(tmp_path, **RECIPES[name])
    x = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        wanted, logits = (load_model(f, MODEL, 3)(x) for f in (file, small))
    assert torch.equal(as_bits(logits), as_bits(wanted))


def test_equal_students_give_equal_files(tmp_path):
    _, first = saved(tmp_path / "a")
    _, second = saved(tmp_path / "b")
    assert first.path.read_bytes() == second.path.read_bytes()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_file_is_as_small_as_its_bits(bits, tmp_path):
    """Codes take bits / 32 of the weights; BatchNorm, steps and the header are the rest."""

    def vgg():
        return daqakd.models.build("vgg8", 3)

    options = {"method": "dorefa", "weight_bits": bits, "first_last": "same"}
    file, small = saved(tmp_path, "vgg8", vgg, **options)
    weights = sum(v.numel() for k, v in file.tensors.items() if v.dim() > 1)
    packed_sizes = [v.numel() for v in small.tensors.values() if v.dtype == torch.uint8]
    assert sum(packed_sizes) <= weights * bits // 8 + len(packed_sizes)
    rest = file.path.stat().st_size - 4 * weights
    assert small.path.stat().st_size <= weights * bits // 8 + rest + 2048


def test_nan_weights_are_not_packed(tmp_path):
    student = daqakd.quantize(SmallNet(), weight_bits=2, act_bits=None)
    student.conv2.weight.data[0] = float("nan")
    with pytest.raises(InputError, match=r"conv2\.weight: 2-bit codes do not give .* NaN"):
        packed.pack(student)


def without_codes(tensors, facts):
    del tensors["conv2.weight"]


def short_codes(tensors, facts):
    tensors["conv2.weight"] = tensors["conv2.weight"][1:].clone()


def other_bits(tensors, facts):
    layers = json.loads(facts["packed"])
    layers["conv2.weight"] |= {"bits": 4, "shape": [8, 8, 3, 3]}
    tensors["conv2.weight"] = torch.zeros(8 * 8 * 9 // 2, dtype=torch.uint8)
    facts["packed"] = json.dumps(layers)


def no_json(tensors, facts):
    facts["packed"] = "{"


def no_step(tensors, facts):
    del tensors["conv2.weight_quantizer.step"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_codes, r"damaged packed student \(KeyError: 'conv2.weight'\)"),
        (short_codes, r"damaged packed student .*expected 144 bytes"),
        (other_bits, "its recipe and its packed layers differ"),
        (no_json, "damaged packed student .*JSONDecodeError"),
        (no_step, r"lacks conv2\.weight_quantizer\.step"),
    ],
)
def test_a_damaged_file_says_so(damage, message, tmp_path):
    _, small = saved(tmp_path)
    tensors, facts = dict(small.tensors), dict(small.facts)
    damage(tensors, facts)
    write_tensors(small.path, tensors, facts)
    with pytest.raises(InputError, match=message) as caught:
        load_model(read_model_file(small.path), MODEL, 3)
    assert "\n" not in str(caught.value)
    assert str(small.path) in str(caught.value)


def test_a_cut_file_says_so(tmp_path):
    _, small = saved(tmp_path)
    small.path.write_bytes(small.path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"student.packed.safetensors: damaged .*; delete it"):
        read_model_file(small.path)
