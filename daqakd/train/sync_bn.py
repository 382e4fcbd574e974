"""``--sync-bn``: BatchNorm by the statistics of the whole batch, whatever a rank has of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .. import _ranks

CLASSES = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _Mean(torch.autograd.Function):
    """The mean of a tensor over ranks, whose gradient is the mean of theirs."""

    @staticmethod
    def forward(_ctx: Any, value: Tensor) -> Tensor:
        mean = value.clone()
        _ranks.average_([mean])
        return mean

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        mean = gradients[0].clone()
        _ranks.average_([mean])
        return mean


class _SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """PyTorch's SyncBatchNorm for the CPU, where PyTorch has none; shares are of one size."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Take what the class before has taken."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``[B, C, ...]``; in training by the mean and variance over all ranks."""
        if not self.training:
            return super().forward(input)
        over = [d for d in range(input.dim()) if d != 1]
        shape = [1, -1] + [1] * (input.dim() - 2)
        mean = _Mean.apply(input.mean(over))
        centred = input - mean.view(shape)
        variance = _Mean.apply(centred.square().mean(over))
        self._record(mean.detach(), variance.detach(), input.numel() // input.shape[1])
        normal: Tensor = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.weight is None:
            return normal
        return normal * self.weight.view(shape) + self.bias.view(shape)

    @torch.no_grad()
    def _record(self, mean: Tensor, variance: Tensor, rows: int) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        momentum = self.momentum or 1 / self.num_batches_tracked.item()
        rows *= _ranks.count()
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * rows / (rows - 1), momentum)


@contextmanager
def synchronised(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Let a model's BatchNorm layers see the whole batch within the block, on several ranks.

    Nothing in the model changes but the class of these layers, so a ``state_dict`` fits both ways.
    """
    layers: list[Any] = [m for m in model.modules() if type(m) in CLASSES]
    if not wanted or _ranks.count() == 1:
        layers = []
    classes = [type(layer) for layer in layers]
    for layer in layers:
        on_gpu = next(model.parameters()).device.type == "cuda"
        layer.__class__ = nn.SyncBatchNorm if on_gpu else _SyncBatchNorm
        layer.process_group = None
    try:
        yield
    finally:
        for layer, own in zip(layers, classes, strict=True):
            layer.__class__ = own
            del layer.process_group
