"""``nn.MultiheadAttention`` with quantized projections.

The projection of the inputs becomes a layer of its own, a child of the attention that holds the
quantizers: ``in_proj``, or ``q_proj``, ``k_proj`` and ``v_proj`` where keys or values have a width
of their own. Its weight stays the attention's parameter, so that keys of a ``state_dict`` stay
valid. ``out_proj`` is a linear layer like others, and is called.

There is one weight quantizer, one input quantizer and one output scale of EWGS for each such
weight: query, key and value share theirs in ``in_proj``, whether they are one tensor or three, and
have one each beside separate weights. Which there are does not depend on calls, therefore, and a
``state_dict`` says all. The products of queries, keys and values stay in full precision.
"""

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from .._errors import InputError
from .attending import Masks, attend
from .layers import OWN, QuantLayer, scaled

SEPARATE = ("q_proj", "k_proj", "v_proj")


class QuantProjection(QuantLayer):
    """A projection of an attention's inputs: a linear layer whose weight is its owner's."""

    plain = nn.MultiheadAttention
    tensors = (*(f"{name}_weight" for name in ("in_proj", *SEPARATE)), "in_proj_bias")
    owner: nn.MultiheadAttention  # no submodule: it lies above
    name: str

    def __init__(self, owner: nn.MultiheadAttention, name: str) -> None:
        super().__init__()
        self.__dict__["owner"], self.name = owner, name

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The attention's parameter, ``[3E, E]``, or ``[E, width]`` of one projection."""
        value: Tensor = getattr(self.owner, f"{self.name}_weight")
        return value

    @property
    def bias(self) -> Tensor | None:
        """The attention's bias, or the part of it that is this projection's."""
        whole = self.owner.in_proj_bias
        return None if whole is None else whole[self.part()]

    def part(self) -> slice:
        """Return where its outputs lie among those of all three."""
        width = self.owner.embed_dim
        if self.name not in SEPARATE:
            return slice(0, 3 * width)
        first = SEPARATE.index(self.name) * width
        return slice(first, first + width)

    def weight_place(self) -> tuple[dict[str, Any], str]:
        """Return the attention's parameters, and the weight's name."""
        return self.owner._parameters, f"{self.name}_weight"

    @staticmethod
    def weight_key(name: str) -> str:
        """Return the name of the weight in a ``state_dict``, from that of the projection."""
        return f"{name}_weight"

    @staticmethod
    def weights_of(layer: Any) -> list[Tensor]:
        """Return the weights that an attention projects its inputs by."""
        found = (layer._parameters.get(f"{name}_weight") for name in ("in_proj", *SEPARATE))
        return [weight for weight in found if weight is not None]

    @staticmethod
    def output_channels(layer: Any) -> int:
        """Return the width of an attention's output."""
        width: int = layer.embed_dim
        return width

    @staticmethod
    def multiply_adds(layer: Any, x: Tensor, out: Tensor) -> int:
        """Return how many a call did for one of its outputs."""
        return out.numel() * int(layer.weight.shape[1])

    def linear_map(self, x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
        """Multiply."""
        return functional.linear(x, weight, bias)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Project one input, by the whole weight; or query, key and value, by a third of it each.

        Returns:
            Query, key and value, from ``in_proj``; else what it is for.
        """
        if len(inputs) > 1:
            return self._three(inputs)
        out = super().forward(inputs[0])
        return (out,) if self.name in SEPARATE else out.chunk(3, -1)

    def _three(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self.passing:
            return self._each(inputs, self.weight, self.bias)
        q = self._quantized_once(*inputs)
        weight, bias = self.quantized_weight(), self.bias
        if self.output_scale is not None:
            if self.calibrating:
                whole = self._each(inputs, self.weight, bias), self._each(q, weight, bias)
                self._start_scale(*(torch.cat([y.flatten() for y in one]) for one in whole))
            weight, bias = scaled(self.output_scale, weight, bias)
        return self._each(q, weight, bias, saving=True)

    def _quantized_once(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Return the quantized inputs; a tensor that is two of them is quantized once."""
        q = self.quantized_input(query)
        k = q if key is query else self.quantized_input(key)
        if value is key or value is query:
            return q, k, k if value is key else q
        return q, k, self.quantized_input(value)

    def _each(
        self, inputs: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None, saving: bool = False
    ) -> tuple[Tensor, ...]:
        """Apply each third of the weight to its input."""
        run = self.saving_linear_map if saving else self.linear_map
        biases = (None,) * 3 if bias is None else bias.chunk(3)
        return tuple(run(*one) for one in zip(inputs, weight.chunk(3), biases, strict=True))

    def to_plain(self) -> None:
        """Leave the quantized weight with the attention, which is torch's after the last."""
        owner, (weight, bias) = self.owner, self.final_tensors()
        self.replace_weight(weight)
        if bias is not None:
            whole = owner.in_proj_bias.detach().clone()
            whole[self.part()] = bias
            owner.in_proj_bias = nn.Parameter(whole)
        del owner._modules[self.name]
        if not any(isinstance(child, QuantProjection) for child in owner.children()):
            for name in OWN & owner.__dict__.keys():
                del owner.__dict__[name]
            owner.__class__ = nn.MultiheadAttention


class QuantMultiheadAttention(nn.MultiheadAttention):
    """``nn.MultiheadAttention`` whose projections are quantized; torch's fast path is never taken.

    Masks, biases of keys and values, and the weights it returns are as in torch.
    """

    @classmethod
    def adopt(cls, layer: nn.Module) -> Self:
        """Turn an attention into a quantized one, in place; its projections have no quantizers."""
        self: Any = layer
        self.__class__ = cls
        for name in ("in_proj",) if self._qkv_same_embed_dim else SEPARATE:
            self.add_module(name, QuantProjection(self, name))
        made: Self = self
        return made

    def projections(self) -> list[QuantProjection]:
        """Return the layers that project the inputs."""
        found = [child for child in self.children() if isinstance(child, QuantProjection)]
        if "_is_replica" in self.__dict__:  # whose children's owner is what they are replicas of
            for child in found:
                child.__dict__["owner"] = self
        return found

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        layers = self.projections()
        if len(layers) > 1:
            pairs = zip(layers, (query, key, value), strict=True)
            return tuple(layer(x)[0] for layer, x in pairs)
        same = query is key and key is value
        projected: tuple[Tensor, ...] = layers[0](query) if same else layers[0](query, key, value)
        return projected

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend; arguments and results are those of torch's module.

        Raises:
            InputError: nested tensors, a mask of another shape, ``is_causal`` without a mask.
        """
        if query.is_nested or key.is_nested or value.is_nested:
            raise InputError(
                "query: is nested, which only torch's fast path takes, and that does not quantize;"
                " pass padded tensors and key_padding_mask="
            )
        heads = self._heads(query, key, value)
        extra = (self.bias_k is not None) + bool(self.add_zero_attn)
        masks = Masks(attn_mask, key_padding_mask, is_causal)
        dropout = self.dropout if self.training else 0.0
        mixed, weights = attend(heads, masks, extra, dropout, need_weights)
        out = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if query.dim() == 2:
            return out[0], None if weights is None else weights[0]
        return out if self.batch_first else out.transpose(0, 1), weights

    def _heads(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """Return what was projected, appended to, each ``[B, heads, L or S, E / heads]``."""
        batched = query.dim() == 3
        q, k, v = (self._batch_first(x, batched) for x in self._projected(query, key, value))
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.expand(len(k), 1, -1)], 1)
            v = torch.cat([v, self.bias_v.expand(len(v), 1, -1)], 1)
        if self.add_zero_attn:
            k, v = (functional.pad(x, (0, 0, 0, 1)) for x in (k, v))
        return [x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v)]

    def _batch_first(self, x: Tensor, batched: bool) -> Tensor:
        """Return ``[B, L, E]``."""
        if not batched:
            return x[None]
        return x if self.batch_first else x.transpose(0, 1)
