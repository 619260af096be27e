"""Matrix products of a CPU by oneDNN, for networks that are only applied.

PyTorch gives float32 products to MKL, which is about a tenth slower on the CPUs measured, and adds the bias and applies the GELU in
passes of their own. The operator used here is the one that `torch.compile` calls for a frozen network; it needs no compiler. Sums are
taken in another order: features differ in the last digits.

Shapes: R rows, I channels in, O channels out.
"""

import torch
from timm.layers import Attention, GluMlp, Mlp
from timm.models.swin_transformer import WindowAttention
from torch import Tensor, nn

_TYPICAL_ROWS = 1024
"""The order of the weights is chosen for about this many rows: the tokens of an image of some hundred pixels. Others fit it too."""

_PACKED_PARTS = (Attention, WindowAttention, Mlp, GluMlp)
"""Parts of a transformer that only call their linear layers; others read the weights."""


def has_onednn() -> bool:
    """Whether this build of PyTorch has the operators."""
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


def dot_products(left_RI: Tensor, right_OI: Tensor) -> Tensor:
    """Each row of one matrix by each of another, [R, O]; float32, without gradients."""
    if left_RI.device.type == "cpu" and left_RI.dtype == torch.float32 and has_onednn():
        return torch.ops.mkldnn._linear_pointwise(left_RI, right_OI, None, "none", [], "")
    return left_RI @ right_OI.T


class PackedLinear(nn.Module):
    """A linear layer with its weights in oneDNN's own order, and optionally the exact GELU after it."""

    def __init__(self, linear: nn.Linear, gelu: bool = False) -> None:
        """Take over a layer's weights.

        Args:
            linear: float32, on the CPU.
            gelu: Whether a GELU follows.
        """
        super().__init__()
        # Not parameters: nothing can save, move or train them in this order.
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _TYPICAL_ROWS)
        self._bias = None if linear.bias is None else linear.bias.detach()
        self._activation = ("gelu", "none") if gelu else ("none", "")

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., I] -> [..., O]."""
        name, variant = self._activation
        return torch.ops.mkldnn._linear_pointwise(inputs, self._packed, self._bias, name, [], variant)


def pack_linear_layers(network: nn.Module) -> None:
    """Replace the linear layers in the blocks of a float32 network on the CPU, in place; nothing where oneDNN is absent.

    The network can then neither be trained nor saved. Its weights are not doubled.
    """
    if not has_onednn():
        return
    for module in list(network.modules()):
        if not isinstance(module, _PACKED_PARTS):
            continue
        if isinstance(module, Mlp) and _is_exact_gelu(module.act) and isinstance(module.fc1, nn.Linear):
            module.fc1 = PackedLinear(module.fc1, gelu=True)
            module.act = nn.Identity()
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, PackedLinear(child))


def _is_exact_gelu(activation: nn.Module) -> bool:
    return isinstance(activation, nn.GELU) and activation.approximate == "none"
