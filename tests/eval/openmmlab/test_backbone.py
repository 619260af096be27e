import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from backbones.build import AnyBackbone, build_backbone
from backbones.file import read_backbone_file
from backbones.spec import DINOv3Spec, ResNetSpec, SwinSpec, TimmSpec, ViTSpec
from backbones.vit import resize_positions
from eval.openmmlab.backbone import BackboneFromFile, choose_taps
from tests.architectures import FUNCTIONS
from tests.layouts import REGISTERS
from tests.toy import write_toy_backbone

TAPS = [0, 1, 2, 3]


def test_weights_survive_mmengines_initialisation(toy_file: Path) -> None:
    # mmengine calls init_weights of every child that has one, and timm's ViT has one that draws fresh weights.
    backbone = BackboneFromFile(str(toy_file), TAPS, deconv_pyramid=True)
    backbone.init_weights()
    stored = read_backbone_file(toy_file).state_dict
    assert all(torch.equal(value, stored[name]) for name, value in backbone.network.state_dict().items())


def test_any_size_is_padded_with_zeros_at_the_bottom_and_right(toy_file: Path) -> None:
    backbone = BackboneFromFile(str(toy_file), [1, 3]).eval()
    images = torch.randn(1, 3, 40, 57)
    padded = torch.zeros(1, 3, 48, 64)
    padded[..., :40, :57] = images
    found, wanted = backbone(images), backbone(padded)
    assert [tuple(map_BDhw.shape[-2:]) for map_BDhw in found] == [(3, 4)] * 2
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_positions_are_resized_once_at_loading_and_registers_have_none(toy_file: Path, tmp_path: Path) -> None:
    loaded = BackboneFromFile(str(toy_file), TAPS, position_resize="size", position_image_size=128).network.pos_embed
    stored = read_backbone_file(toy_file).state_dict["pos_embed"]
    assert torch.equal(loaded[:, :1], stored[:, :1])
    assert torch.equal(loaded[:, 1:], resize_positions(stored[:, 1:], (8, 8), "size"))
    path = write_toy_backbone(tmp_path, REGISTERS)
    backbone = BackboneFromFile(str(path), [0, 1], position_resize="size", position_image_size=84).eval()
    stored = read_backbone_file(path).state_dict["pos_embed"]
    assert torch.equal(backbone.network.pos_embed, resize_positions(stored, (6, 6), "size"))
    assert [tuple(features.shape) for features in backbone(torch.randn(1, 3, 28, 40))] == [(1, 64, 2, 3)] * 2


def test_head_count_changes_attention_not_weights(toy_file: Path) -> None:
    images = torch.randn(1, 3, 64, 64)
    by_file = BackboneFromFile(str(toy_file), [3]).eval()
    by_choice = BackboneFromFile(str(toy_file), [3], num_heads=4).eval()
    assert torch.equal(by_file.network.state_dict()["blocks.0.attn.qkv.weight"], by_choice.network.blocks[0].attn.qkv.weight)
    assert not torch.allclose(by_file(images)[0], by_choice(images)[0])
    with pytest.raises(ValueError, match="num_heads=5"):
        BackboneFromFile(str(toy_file), [3], num_heads=5)


DINOV3 = DINOv3Spec(embed_dim=24, depth=4, num_heads=3, patch_size=16, hidden_dim=32, register_tokens=2)


@pytest.mark.parametrize("dinov3", [False, True])
def test_every_trainable_parameter_gets_a_gradient(toy_file: Path, tmp_path: Path, dinov3: bool) -> None:
    # DistributedDataParallel waits for the gradient of every trainable parameter.
    backbone = BackboneFromFile(str(write_toy_backbone(tmp_path, DINOV3) if dinov3 else toy_file), [0, 1, 2])
    sum(map_BDhw.sum() for map_BDhw in backbone(torch.randn(2, 3, 50, 64))).backward()
    assert [name for name, value in backbone.named_parameters() if value.requires_grad and value.grad is None] == []
    assert not backbone.network.blocks[3].norm1.weight.requires_grad
    assert not backbone.network.norm.weight.requires_grad


def test_a_dinov3_goes_through_the_pyramid(tmp_path: Path) -> None:
    file = str(write_toy_backbone(tmp_path, DINOV3))
    maps = BackboneFromFile(file, TAPS, deconv_pyramid=True)(torch.randn(2, 3, 64, 96))
    assert [tuple(map_BDhw.shape[-2:]) for map_BDhw in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    with pytest.raises(ValueError, match="takes four maps, not the 2"):
        BackboneFromFile(file, TAPS[:2], deconv_pyramid=True)
    with pytest.raises(ValueError, match="num_heads=6 can be chosen for a ViT only"):
        BackboneFromFile(file, TAPS, num_heads=6)


def test_stages_of_a_resnet_need_no_pyramid(tmp_path: Path) -> None:
    file = write_toy_backbone(tmp_path, ResNetSpec(layers=(1, 1, 1, 1)))
    maps = BackboneFromFile(str(file), TAPS)(torch.randn(2, 3, 50, 64))
    assert [tuple(map_BDhw.shape[-2:]) for map_BDhw in maps] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    with pytest.raises(ValueError, match="pyramid is for a ViT"):
        BackboneFromFile(str(file), TAPS, deconv_pyramid=True)
    # Batch norm that GPUs share keeps its names and weights.
    shared = BackboneFromFile(str(file), TAPS, sync_batch_norm=True).network
    kinds = {type(layer) for layer in shared.modules() if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)}
    assert kinds == {torch.nn.SyncBatchNorm}
    stored = read_backbone_file(file).state_dict
    assert all(torch.equal(value, stored[name]) for name, value in shared.state_dict().items())


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_compiled_backbones_give_the_same_maps_and_gradients_for_any_size(toy_file: Path) -> None:
    plain, compiled = BackboneFromFile(str(toy_file), TAPS), BackboneFromFile(str(toy_file), TAPS, compile=True)
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    for size in ((64, 96), (80, 64), (96, 112)):
        images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
        for backbone in (plain, compiled):
            backbone.zero_grad()
            sum(maps.square().mean() for maps in backbone(images)).backward()
        torch.testing.assert_close(compiled(images), plain(images), rtol=1e-4, atol=1e-5)
        wanted, found = ({name: value.grad for name, value in one.named_parameters()} for one in (plain, compiled))
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-6)


def test_stages_of_a_swin_are_normalised_and_shifted(tmp_path: Path) -> None:
    spec = SwinSpec(embed_dim=24, depths=(2, 2, 2, 2), num_heads=(3, 6, 12, 24), window_size=7)
    file = write_toy_backbone(tmp_path, spec)
    plain = BackboneFromFile(str(file), TAPS).eval()
    as_published = BackboneFromFile(str(file), TAPS, norm_maps=True).eval()
    images = torch.randn(1, 3, 256, 288)
    before, after = plain(images), as_published(images)

    def shifts(network: AnyBackbone) -> list[list[tuple[int, int]]]:
        return [[block.shift_size for block in stage.blocks] for stage in network.layers]

    assert shifts(as_published.network) == [[(0, 0), (3, 3)]] * 4
    plain(images[..., :224])  # a window covers the last map's width alone
    assert shifts(plain.network)[3] == [(0, 0), (3, 0)]
    plain(images[..., :224, :224])
    assert shifts(plain.network)[2:] == [[(0, 0), (3, 3)], [(0, 0), (0, 0)]]
    assert [tuple(map_BDhw.shape[1:]) for map_BDhw in after] == [(24, 64, 72), (48, 32, 36), (96, 16, 18), (192, 8, 9)]
    for plain_BDhw, normed_BDhw in zip(before, after, strict=True):
        wanted_BhwD = torch.nn.functional.layer_norm(plain_BDhw.permute(0, 2, 3, 1), plain_BDhw.shape[1:2])
        torch.testing.assert_close(normed_BDhw.permute(0, 2, 3, 1), wanted_BhwD)


def test_without_its_class_token_a_vit_is_one_that_never_had_it(toy_file: Path, toy_spec: ViTSpec, tmp_path: Path) -> None:
    kept, without = (BackboneFromFile(str(toy_file), TAPS, class_token=keep).eval() for keep in (True, False))
    bare = build_backbone(dataclasses.replace(toy_spec, class_token=False)).eval()
    weights = {name: value for name, value in kept.network.state_dict().items() if name != "cls_token"}
    weights["pos_embed"] = weights["pos_embed"][:, 1:]
    bare.load_state_dict(weights)
    images = torch.randn(1, 3, 96, 64)
    torch.testing.assert_close(list(without(images)), bare.forward_maps(images, TAPS))
    assert not torch.allclose(without(images)[0], kept(images)[0])
    with pytest.raises(ValueError, match=r"--no-class-token leaves out the CLS token .* this backbone is a resnet"):
        BackboneFromFile(str(write_toy_backbone(tmp_path, ResNetSpec(layers=(1, 1, 1, 1)))), TAPS, class_token=False)


def test_maps_of_another_stride_are_resampled_in_place() -> None:
    """Each position of the map, and of the one that it becomes, has the mean of the columns of the pixels that it stands for."""
    backbone = BackboneFromFile(f"{FUNCTIONS}:means_of_14", [0, 0], strides=[16, 8])
    columns = torch.arange(96.0).expand(1, 3, 64, 96)
    by_16, by_8 = backbone(columns)
    assert by_16.shape == (1, 3, 4, 6)
    assert by_8.shape == (1, 3, 8, 12)
    torch.testing.assert_close(by_16[0, 0, 1, 1:5], 7.5 + 16 * torch.arange(1.0, 5))
    torch.testing.assert_close(by_8[0, 0, 1, 1:10], 3.5 + 8 * torch.arange(1.0, 10))


def test_parameters_without_a_part_in_the_maps_are_frozen() -> None:
    names = {
        name: [
            key
            for key, value in BackboneFromFile(f"{FUNCTIONS}:{name}", taps).network.named_parameters()
            if not value.requires_grad
        ]
        for name, taps in (("one_map", [0]), ("frozen_parameters", [0]), ("stages", [1, 2]), ("blocks", [3]))
    }
    assert names["one_map"] == names["frozen_parameters"] == ["network.extra.weight", "network.extra.bias"]
    assert names["stages"] == ["network.stages.3.weight", "network.stages.3.bias"]
    assert [name for name in names["blocks"] if "blocks" in name] == [
        f"network.blocks.{i}.{kind}" for i in (4, 5) for kind in ("weight", "bias")
    ]


@pytest.mark.parametrize(
    ("strides", "taps"),
    [
        ((2, 4, 8, 16, 32), [1, 2, 3, 4]),
        ((4, 8, 8, 16, 32), [0, 2, 3, 4]),
        ((8, 16, 16, 16), [0, 0, 3, 3]),
        ((14,) * 24, [5, 11, 17, 23]),
        ((16,), [0, 0, 0, 0]),
    ],
)
def test_the_maps_of_a_network_that_is_none_of_ours(strides: tuple[int, ...], taps: list[int]) -> None:
    spec = TimmSpec(name="any", channels=(8,) * len(strides), strides=strides, image_size=224, size_step=32)
    assert choose_taps(None, [2, 5, 8, 11], spec) == taps


def test_a_network_without_gradients_cannot_be_fine_tuned() -> None:
    with pytest.raises(ValueError, match=r"architectures:frozen computes its maps without gradients \(torch.no_grad\?\)"):
        BackboneFromFile(f"{FUNCTIONS}:frozen", [0])
