"""Layers trained by oneDNN give what PyTorch's give, and are the same module to everybody else."""

import copy

import pytest
import torch
from timm.layers import Mlp
from torch import nn

from backbones.onednn import has_onednn
from pretrain.onednn_linear import OneDNNLinear, OneDNNMlp, gelu_linear, train_by_onednn

needs_onednn = pytest.mark.skipif(not has_onednn(), reason="this build of PyTorch is without oneDNN")


@needs_onednn
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), [(7, 5), (1100, 1050)])
def test_outputs_and_gradients(inputs: int, outputs: int, bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(inputs, outputs, bias=bias), nn.GELU())
    ours = copy.deepcopy(plain)
    train_by_onednn(ours)
    assert isinstance(ours[0], OneDNNLinear)
    assert ours.state_dict().keys() == plain.state_dict().keys()
    tokens = torch.randn(2, 3, inputs)
    found = [tokens.clone().requires_grad_() for _ in range(2)]
    for network, given in zip((plain, ours), found, strict=True):
        # Not contiguous, as gradients of transposed outputs are.
        network(given).transpose(1, 2).square().sum().backward()
    torch.testing.assert_close(found[1].grad, found[0].grad, atol=1e-4, rtol=1e-4)
    for right, parameter in zip(plain.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, right.grad, atol=1e-4, rtol=1e-4)


@needs_onednn
def test_reduced_precision_is_pytorchs() -> None:
    layer = nn.Linear(4, 4)
    train_by_onednn(layer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.randn(2, 4)).dtype == torch.bfloat16
    assert layer.double()(torch.randn(2, 4, dtype=torch.float64)).dtype == torch.float64


@needs_onednn
def test_layers_after_a_gelu() -> None:
    """In a block's MLP, and where the two are put together by hand."""
    torch.manual_seed(0)
    plain = Mlp(12, 48)
    ours = copy.deepcopy(plain)
    train_by_onednn(ours)
    assert isinstance(ours, OneDNNMlp)
    found = [torch.linspace(-3, 3, 72).view(2, 3, 12).requires_grad_() for _ in range(3)]
    outputs = [plain(found[0]), ours(found[1]), gelu_linear(plain.fc1(found[2]), plain.fc2)]
    for output in outputs:
        torch.testing.assert_close(output, outputs[0], atol=1e-5, rtol=1e-5)
    for network, output in zip((plain, ours), outputs, strict=False):
        output.square().sum().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())
    torch.testing.assert_close(found[1].grad, found[0].grad, atol=1e-5, rtol=1e-4)
    for right, parameter in zip(plain.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, right.grad, atol=1e-5, rtol=1e-4)


@needs_onednn
def test_other_activations_and_dropout_stay() -> None:
    for mlp in (Mlp(4, 8, act_layer=nn.SiLU), Mlp(4, 8, drop=0.1)):
        train_by_onednn(mlp)
        assert not isinstance(mlp, OneDNNMlp)
