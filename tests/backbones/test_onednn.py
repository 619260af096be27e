"""Products by oneDNN are those of PyTorch, up to the order of sums."""

import copy

import pytest
import torch
from torch import nn

from backbones import onednn
from backbones.build import build_backbone
from backbones.onednn import PackedLinear, dot_products, has_onednn, pack_linear_layers
from backbones.spec import BackboneSpec, ResNetSpec, SwinSpec, ViTSpec

needs_onednn = pytest.mark.skipif(not has_onednn(), reason="this build of PyTorch is without oneDNN")

FAMILIES: dict[str, BackboneSpec] = {
    "vit": ViTSpec(embed_dim=64, depth=2, num_heads=2, patch_size=16, image_size=64, class_token=True, final_norm=True),
    "swiglu": ViTSpec(
        embed_dim=64, depth=2, num_heads=2, patch_size=16, image_size=64, class_token=True, final_norm=True, mlp="swiglu"
    ),
    "swin": SwinSpec(embed_dim=24, depths=(1, 1), num_heads=(1, 2), window_size=4, image_size=64),
    "resnet": ResNetSpec(layers=(1, 1, 1, 1)),
}


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_packed_network_gives_the_same_features(family: str) -> None:
    torch.manual_seed(0)
    network = build_backbone(FAMILIES[family]).eval()
    packed = copy.deepcopy(network)
    pack_linear_layers(packed)
    images_B3HW = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(packed.forward_tokens(images_B3HW).patches, network.forward_tokens(images_B3HW).patches)


@needs_onednn
def test_a_packed_vit_keeps_no_second_copy_of_its_weights() -> None:
    network = build_backbone(FAMILIES["vit"])
    pack_linear_layers(network)
    assert not [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    assert not [name for name, _ in network.named_parameters() if ".attn." in name or ".mlp." in name]


@needs_onednn
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("gelu", [False, True])
@torch.no_grad()
def test_a_packed_layer_with_and_without_bias_and_gelu(bias: bool, gelu: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(40, 24, bias=bias)
    inputs = torch.randn(2, 3, 40)
    expected = linear(inputs)
    torch.testing.assert_close(PackedLinear(linear, gelu)(inputs), nn.functional.gelu(expected) if gelu else expected)


@pytest.mark.parametrize("rows", [1, 7, 300])
def test_dot_products(rows: int) -> None:
    torch.manual_seed(0)
    left_RI, right_OI = torch.randn(rows, 33), torch.randn(5, 33)
    torch.testing.assert_close(dot_products(left_RI, right_OI), left_RI @ right_OI.T)
    torch.testing.assert_close(dot_products(left_RI.double(), right_OI.double()), left_RI.double() @ right_OI.double().T)


def test_without_onednn_everything_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "has_onednn", lambda: False)
    network = build_backbone(FAMILIES["vit"])
    before = [type(module) for module in network.modules()]
    pack_linear_layers(network)
    assert [type(module) for module in network.modules()] == before
    left_RI, right_OI = torch.ones(2, 3), torch.ones(4, 3)
    assert torch.equal(dot_products(left_RI, right_OI), left_RI @ right_OI.T)
