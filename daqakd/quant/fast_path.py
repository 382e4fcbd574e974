"""torch's fast path of ``nn.TransformerEncoder(Layer)`` is switched off around quantized layers.

In evaluation without gradients it hands the weights of the linear layers to one fused kernel, past
their forward passes: a student would be evaluated in full precision. Nested tensors are part of it.
"""

from torch import nn

from .layers import QuantLayer


def switch_off(model: nn.Module) -> None:
    """Make encoders that hold quantized layers call them, in evaluation as in training."""
    encoders = (nn.TransformerEncoder, nn.TransformerEncoderLayer)
    for module in model.modules():
        if isinstance(module, encoders) and any(
            isinstance(m, QuantLayer) for m in module.modules()
        ):
            if isinstance(module, nn.TransformerEncoder):
                module.use_nested_tensor = False
            else:
                module.activation_relu_or_gelu = 0  # the fast path has no other activations
