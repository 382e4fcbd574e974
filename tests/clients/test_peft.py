"""PEFT: LoRA on a student whose layers stay quantized, and quantize on a model with LoRA."""

import io

import peft
import pytest
import torch
from torch import nn

import daqakd
from daqakd.quant import QuantLinear

from .loops import Words, check_runs_quantized, quantized, text_model
from .trial import METHODS
from .witness import Witness, quantized_layers

MODELS = {
    "LlamaForCausalLM": ["q_proj", "v_proj"],
    "BertForSequenceClassification": ["query", "value"],
}


def batch(name: str) -> dict[str, torch.Tensor]:
    words = torch.stack([Words()[i]["input_ids"] for i in range(4)])
    labels = words if "Causal" in name else words[:, 0] % 2
    return {"input_ids": words, "labels": labels}


def with_lora(model: nn.Module, name: str, **options) -> nn.Module:
    return peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=MODELS[name], **options))


def step(model: nn.Module, inputs: dict[str, torch.Tensor]) -> None:
    rated = [p for p in model.parameters() if p.requires_grad]
    loss = model.train()(**inputs).loss
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in rated)
    torch.optim.SGD(rated, lr=0.1).step()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # as after many steps: the change of one is lost in the rounding
            parameter.data.normal_(std=4.0)


def logits(model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.inference_mode():
        return check_runs_quantized(model.eval(), **inputs).logits


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("method", METHODS)
def test_lora_on_a_student(method, name, dora, tmp_path):
    inputs = batch(name)
    student = daqakd.calibrate(quantized(text_model(name), method), inputs)
    before = logits(student, inputs)
    state = {k: v.clone() for k, v in student.state_dict().items()}
    model = with_lora(student, name, use_dora=dora)
    torch.testing.assert_close(logits(model, inputs), before)
    step(model, inputs)
    after = logits(model, inputs)
    assert not torch.equal(after, before)
    model.save_pretrained(tmp_path)
    fresh = quantized(text_model(name), method)
    fresh.load_state_dict(state)
    loaded = peft.PeftModel.from_pretrained(fresh, str(tmp_path))
    assert torch.equal(logits(loaded, inputs), after)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("method", METHODS)
def test_merged_adapters_stay_in_quantized_layers(method, name):
    inputs = batch(name)
    student = daqakd.calibrate(quantized(text_model(name), method), inputs)
    count = len(quantized_layers(student))
    model = with_lora(student, name)
    step(model, inputs)
    merged = model.merge_and_unload()
    assert len(quantized_layers(merged)) == count
    assert logits(merged, inputs).isfinite().all()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("method", METHODS)
def test_a_model_with_lora_is_quantized(method, name):
    inputs = batch(name)
    model = with_lora(text_model(name), name)
    student = daqakd.calibrate(quantized(model, method, exclude="*lora_*"), inputs)
    for layer in (m for n, m in student.named_modules() if n.endswith("base_layer")):
        assert isinstance(layer, QuantLinear)
    noted = {row.name for row in daqakd.summary(student).layers if row.note}
    assert all(
        n in noted for n, m in student.named_modules() if "lora_" in n and type(m) is nn.Linear
    )
    with Witness(student) as witness:
        student.train()(**inputs).loss.backward()
    witness.check(set(quantized_layers(student)))
    trained = {n for n, p in student.named_parameters() if p.grad is not None}
    assert any("lora_B" in n for n in trained)
    file = io.BytesIO()
    torch.save(student.state_dict(), file)
    file.seek(0)
    other = quantized(with_lora(text_model(name), name), method, exclude="*lora_*")
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(logits(other, inputs), logits(student, inputs))


@pytest.mark.parametrize("method", ["pact", "dorefa", "ewgs"])
def test_adapters_that_start_from_zero_are_refused_with_a_way_out(method):
    name = "LlamaForCausalLM"
    with pytest.raises(daqakd.InputError, match=r"lora_B.* all zero.*exclude= it"):
        quantized(with_lora(text_model(name), name), method)
