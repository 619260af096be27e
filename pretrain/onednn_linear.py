"""Linear layers of a training step on a CPU by oneDNN (see `backbones.onednn`, which serves networks that are only applied).

PyTorch gives their float32 products to MKL, which was 10 to 15 % slower on the CPU measured, forwards and for the gradient of the
inputs. The gradient of the weights, with sums over many rows, is oneDNN's only for wide layers; for narrow ones MKL is faster.

Shapes: R rows, I channels in, O channels out.
"""

from typing import Any

import torch
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


def _sum_of_products(gradient_RO: Tensor, inputs_RI: Tensor) -> Tensor:
    if min(gradient_RO.shape[1], inputs_RI.shape[1]) >= _WIDE:
        return dot_products(gradient_RO.T, inputs_RI.T)
    return gradient_RO.T @ inputs_RI


class OneDNNLinear(nn.Linear):
    """A linear layer whose float32 products on a CPU are oneDNN's; the same parameters under the same names."""

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., I] -> [..., O]."""
        is_exact = inputs.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        if inputs.device.type != "cpu" or not is_exact or torch.compiler.is_compiling():
            return super().forward(inputs)
        rows = _Product.apply(inputs.flatten(0, -2), self.weight, self.bias)
        return rows.view(*inputs.shape[:-1], -1)


def train_by_onednn(network: nn.Module) -> None:
    """Let the linear layers of a network compute by oneDNN, in place; nothing where it is absent."""
    if not has_onednn():
        return
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = OneDNNLinear
