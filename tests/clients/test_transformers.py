"""Hugging Face transformers: tiny configurations of text, image and speech models."""

import copy
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import daqakd

from .trial import METHODS, Subject, call, loss_of, trial, with_methods

WORDS = 64
TEXT = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DECODER = {**TEXT, "num_key_value_heads": 2, "use_cache": False}
IMAGE = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
STAGES = {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]}
# class of the model: class of its configuration, arguments
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "BertForSequenceClassification": ("BertConfig", TEXT),
    "DistilBertForSequenceClassification": (
        "DistilBertConfig",
        {"vocab_size": WORDS, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    ),
    "RobertaForMaskedLM": ("RobertaConfig", TEXT),
    "AlbertForSequenceClassification": ("AlbertConfig", {**TEXT, "embedding_size": 16}),
    "ElectraForSequenceClassification": ("ElectraConfig", {**TEXT, "embedding_size": 16}),
    "T5EncoderModel": (
        "T5Config",
        {
            "vocab_size": WORDS,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": 2,
            "num_heads": 4,
        },
    ),
    "GPT2LMHeadModel": (
        "GPT2Config",
        {"vocab_size": WORDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "use_cache": False},
    ),
    "GPTNeoXForCausalLM": ("GPTNeoXConfig", {**TEXT, "use_cache": False}),
    "OPTForCausalLM": ("OPTConfig", {**TEXT, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "LlamaForCausalLM": ("LlamaConfig", DECODER),
    "MistralForCausalLM": ("MistralConfig", DECODER),
    "Qwen2ForCausalLM": ("Qwen2Config", DECODER),
    "GemmaForCausalLM": ("GemmaConfig", {**DECODER, "head_dim": 8}),
    "MixtralForCausalLM": (
        "MixtralConfig",
        {**DECODER, "num_local_experts": 2, "num_experts_per_tok": 2},
    ),
    "ViTForImageClassification": ("ViTConfig", IMAGE),
    "DeiTForImageClassification": ("DeiTConfig", IMAGE),
    "BeitForImageClassification": ("BeitConfig", IMAGE),
    "SwinForImageClassification": (
        "SwinConfig",
        {
            "image_size": 32,
            "patch_size": 4,
            "embed_dim": 16,
            "depths": [1, 1],
            "num_heads": [2, 4],
            "window_size": 4,
        },
    ),
    "ConvNextForImageClassification": ("ConvNextConfig", STAGES),
    "ResNetForImageClassification": ("ResNetConfig", {**STAGES, "embedding_size": 8}),
    "SegformerForSemanticSegmentation": (
        "SegformerConfig",
        {**STAGES, "num_attention_heads": [1, 2, 2, 4], "decoder_hidden_size": 16},
    ),
    "Wav2Vec2ForSequenceClassification": (
        "Wav2Vec2Config",
        {
            **{k: v for k, v in TEXT.items() if k != "max_position_embeddings"},
            "conv_dim": (16, 16),
            "conv_stride": (5, 2),
            "conv_kernel": (10, 3),
            "num_feat_extract_layers": 2,
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 2,
            "layerdrop": 0.0,
            "mask_time_prob": 0.0,
        },
    ),
}


def build(name: str) -> nn.Module:
    configuration, options = MODELS[name]
    config = getattr(transformers, configuration)(**options)
    return getattr(transformers, name)(config)


def batch(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return what the model's main input is called, and some."""
    kind = str(model.main_input_name)
    if kind == "pixel_values":
        return {kind: torch.randn(2, 3, 32, 32)}
    if kind == "input_values":
        return {kind: torch.randn(2, 400)}
    words = torch.randint(3, WORDS, (2, 8))
    return {kind: words, "attention_mask": torch.ones_like(words)}


def student_and_batch(name: str, method: str) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    model = build(name)
    inputs = batch(model)
    student = daqakd.quantize(model, weight_bits=4, act_bits=4, method=method)
    return daqakd.calibrate(student, inputs), inputs


@pytest.mark.parametrize(("name", "method"), with_methods(MODELS))
def test_transformers(name, method, table):
    inputs = batch(build(name))
    table(trial(Subject("transformers", name, lambda: build(name), inputs, method)))


@pytest.mark.parametrize("method", METHODS)
def test_words_are_generated_with_and_without_a_cache(method):
    student, inputs = student_and_batch("LlamaForCausalLM", method)
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    cached = student.eval().generate(**inputs, use_cache=True, **options)
    assert torch.equal(cached, student.generate(**inputs, use_cache=False, **options))
    assert cached.shape == (2, 12)


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "ViTForImageClassification"])
@pytest.mark.parametrize("method", METHODS)
def test_checkpointed_layers_have_the_same_gradients(method, name):
    student, inputs = student_and_batch(name, method)
    twin = copy.deepcopy(student).train()
    student.gradient_checkpointing_enable()
    for model in (student.train(), twin):
        loss_of(call(model, inputs)).backward()
    for (key, a), b in zip(student.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=key)
