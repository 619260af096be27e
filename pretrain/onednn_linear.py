"""Linear layers of a training step on a CPU by oneDNN (see `backbones.onednn`, which serves networks that are only applied).

PyTorch gives their float32 products to MKL, which was 10 to 15 % slower on the CPU measured, forwards and for the gradient of the
inputs. The gradient of the weights, with sums over many rows, is oneDNN's only for wide layers; for narrow ones MKL is faster.

A layer after a GELU keeps what goes into the GELU and computes it again for the gradient: PyTorch keeps both sides of it, which is a
quarter of a training step's activations, to save a hundredth of its time.

Shapes: R rows, I channels in, O channels out.
"""

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from backbones.onednn import dot_products, has_onednn

_WIDE = 1024


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs_RI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs_RI, weight_OI)
        return torch.ops.mkldnn._linear_pointwise(inputs_RI, weight_OI, bias_O, "none", [], "")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs_RI, weight_OI = ctx.saved_tensors
        gradient_RO = gradients[0].contiguous()
        of_inputs_RI = dot_products(gradient_RO, weight_OI.T) if ctx.needs_input_grad[0] else None
        of_weight_OI = _sum_of_products(gradient_RO, inputs_RI) if ctx.needs_input_grad[1] else None
        return of_inputs_RI, of_weight_OI, gradient_RO.sum(0) if ctx.needs_input_grad[2] else None


class _ProductOfGELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_RI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(hidden_RI, weight_OI)
        return torch.ops.mkldnn._linear_pointwise(F.gelu(hidden_RI), weight_OI, bias_O, "none", [], "")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden_RI, weight_OI = ctx.saved_tensors
        gradient_RO = gradients[0].contiguous()
        of_weight_OI = _sum_of_products(gradient_RO, F.gelu(hidden_RI)) if ctx.needs_input_grad[1] else None
        of_hidden_RI = None
        if ctx.needs_input_grad[0]:
            of_hidden_RI = torch.ops.aten.gelu_backward(dot_products(gradient_RO, weight_OI.T), hidden_RI)
        return of_hidden_RI, of_weight_OI, gradient_RO.sum(0) if ctx.needs_input_grad[2] else None


def _sum_of_products(gradient_RO: Tensor, inputs_RI: Tensor) -> Tensor:
    if min(gradient_RO.shape[1], inputs_RI.shape[1]) >= _WIDE:
        return dot_products(gradient_RO.T, inputs_RI.T)
    return gradient_RO.T @ inputs_RI


class OneDNNLinear(nn.Linear):
    """A linear layer whose float32 products on a CPU are oneDNN's; the same parameters under the same names."""

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., I] -> [..., O]."""
        if not _is_served(inputs):
            return super().forward(inputs)
        rows = _Product.apply(inputs.flatten(0, -2), self.weight, self.bias)
        return rows.view(*inputs.shape[:-1], -1)

    def after_gelu(self, hidden: Tensor) -> Tensor:
        """The layer of the GELU of [..., I] -> [..., O]."""
        if not _is_served(hidden):
            return super().forward(F.gelu(hidden))
        rows = _ProductOfGELU.apply(hidden.flatten(0, -2), self.weight, self.bias)
        return rows.view(*hidden.shape[:-1], -1)


class OneDNNMlp(Mlp):
    """timm's MLP of a block, where it is two linear layers and a GELU."""

    def forward(self, tokens: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        return self.fc2.after_gelu(self.fc1(tokens))


def _is_served(inputs: Tensor) -> bool:
    is_exact = inputs.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return inputs.device.type == "cpu" and is_exact and not torch.compiler.is_compiling()


def gelu_linear(hidden: Tensor, linear: nn.Module) -> Tensor:
    """A linear layer after a GELU."""
    return linear.after_gelu(hidden) if isinstance(linear, OneDNNLinear) else linear(F.gelu(hidden))


def train_by_onednn(network: nn.Module) -> None:
    """Let the linear layers of a network compute by oneDNN, in place; nothing where it is absent."""
    if not has_onednn():
        return
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = OneDNNLinear
    for module in network.modules():
        if type(module) is Mlp and _is_plain(module):
            module.__class__ = OneDNNMlp


def _is_plain(mlp: Mlp) -> bool:
    """Whether an MLP does nothing but its two layers and the exact GELU."""
    is_gelu = isinstance(mlp.act, nn.GELU) and mlp.act.approximate == "none"
    rates = (mlp.drop1.p, mlp.drop2.p)
    return is_gelu and isinstance(mlp.norm, nn.Identity) and isinstance(mlp.fc2, OneDNNLinear) and not any(rates)
