"""Scaled dot-product attention with the masks of ``nn.MultiheadAttention``."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from .._errors import InputError


class Masks(NamedTuple):
    """As ``nn.MultiheadAttention`` takes them: boolean, True for what is left out, or added."""

    attention: Tensor | None  # [L, S] or [B * heads, L, S]
    padding: Tensor | None  # [B, S] or [S]
    is_causal: bool  # a hint that `attention` is the causal mask

    @property
    def is_known(self) -> bool:
        """Whether the attention mask is the causal one, and the only one."""
        return self.is_causal and self.padding is None

    def together(self, q: Tensor, keys: int) -> Tensor | None:
        """Return what is added to the scores, ``[B or 1, heads or 1, L or 1, keys]``.

        Args:
            q: ``[B, heads, L, E / heads]``.
            keys: how many were given.

        Raises:
            InputError: a mask of another shape or dtype.
        """
        batch, heads, queries, _ = q.shape
        whole, rows = (queries, keys), (batch * heads, queries, keys)
        mask = None
        if self.attention is not None:
            mask = _added("attn_mask", self.attention, (whole, rows), q.dtype)
            mask = mask.view(-1 if mask.dim() == 3 else 1, heads if mask.dim() == 3 else 1, *whole)
        if self.padding is None:
            return mask
        shapes = ((batch, keys), (keys,) if batch == 1 else (batch, keys))
        padding = _added("key_padding_mask", self.padding, shapes, q.dtype).view(-1, 1, 1, keys)
        return padding if mask is None else mask + padding


def _added(
    name: str, mask: Tensor, shapes: Sequence[tuple[int, ...]], dtype: torch.dtype
) -> Tensor:
    """Return a mask as numbers to add, -inf for what a boolean one leaves out."""
    if tuple(mask.shape) not in shapes:
        raise InputError(
            f"{name}: expected shape {' or '.join(map(str, dict.fromkeys(shapes)))}, got"
            f" {tuple(mask.shape)}; see torch.nn.MultiheadAttention"
        )
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))
    if mask.is_floating_point():
        return mask.to(dtype)
    raise InputError(f"{name}: expected booleans or numbers to add, got {mask.dtype}; cast it")


def attend(
    heads: Sequence[Tensor], masks: Masks, extra: int, dropout: float, need_weights: bool
) -> tuple[Tensor, Tensor | None]:
    """Return mixed values ``[B, heads, L, E / heads]`` and weights ``[B, heads, L, S]`` or None.

    Args:
        heads: query, key and value, ``[B, heads, L or S, E / heads]``.
        masks: of the keys that were given.
        extra: keys at the end that no mask knows.
        dropout: probability, of the weights.
        need_weights: whether to return them.

    Raises:
        InputError: as for :class:`Masks`, or a causal hint without a mask.
    """
    q, k, v = heads
    if masks.is_causal and masks.attention is None:
        raise InputError(
            "attn_mask: None, but is_causal is a hint about a mask; pass the mask, too, such as"
            " torch.nn.Transformer.generate_square_subsequent_mask(L)"
        )
    hint = masks.is_known and not need_weights
    mask = None if hint else masks.together(q, k.shape[2] - extra)
    if mask is not None:
        mask = functional.pad(mask, (0, extra))
    if not need_weights:
        return functional.scaled_dot_product_attention(q, k, v, mask, dropout, hint), None
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    weights = (scores if mask is None else scores + mask).softmax(-1)
    weights = functional.dropout(weights, dropout) if dropout else weights
    return weights @ v, weights
