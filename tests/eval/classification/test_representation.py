from dataclasses import replace
from pathlib import Path

import pytest
import torch

from backbones.build import build_backbone
from backbones.spec import BackboneSpec, DINOv3Spec, ResNetSpec, SwinSpec, ViTSpec
from eval.classification.representation import FeatureExtractor, Representation, choose_representation
from tests.eval.classification.conftest import SPEC

CPU = torch.device("cpu")
IMAGES = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
SWIN = SwinSpec(embed_dim=16, depths=(1, 1), num_heads=(2, 2), window_size=4, image_size=32)
RESNET = ResNetSpec(layers=(1, 1, 1, 1))
DINOV3 = DINOv3Spec(embed_dim=32, depth=5, num_heads=2, patch_size=16, hidden_dim=64, register_tokens=2)


def features(spec: BackboneSpec, representation: Representation) -> tuple[dict[str, torch.Tensor], torch.nn.Module]:
    torch.manual_seed(0)
    network = build_backbone(spec)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # norms too: leaving one out must show
    extractor = FeatureExtractor(network, representation, CPU)
    extractor(IMAGES * 2)  # of one call, nothing is left for the next
    return extractor(IMAGES), network


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, register_tokens=2, class_position=False)])
def test_small_vit(spec: ViTSpec) -> None:
    representation = choose_representation(spec, None, None)
    assert (representation.blocks, representation.mean_patch) == (4, False)
    found, network = features(spec, representation)
    with torch.inference_mode():
        tokens, _ = network._embed(IMAGES)
        cls = []
        for block in network.blocks:
            tokens = block(tokens)
            cls.append(network.norm(tokens)[:, 0])
    torch.testing.assert_close(found["linear"], torch.cat(cls[-4:], dim=1))
    torch.testing.assert_close(found["knn"], cls[-1])


def test_dinov3() -> None:
    representation = choose_representation(DINOV3, None, None)
    assert (representation.blocks, representation.mean_patch) == (4, False)
    found, network = features(DINOV3, representation)
    with torch.inference_mode():
        intermediates = network.forward_intermediates(
            IMAGES, return_prefix_tokens=True, norm=True, output_fmt="NLC", intermediates_only=True
        )
    cls = [prefix[:, 0] for _, prefix in intermediates]
    torch.testing.assert_close(found["linear"], torch.cat(cls[-4:], dim=1))
    torch.testing.assert_close(found["knn"], cls[-1])


def test_base_vit() -> None:
    spec = replace(SPEC, embed_dim=768, num_heads=12, depth=1)
    representation = choose_representation(spec, None, None)
    found, network = features(spec, representation)
    with torch.inference_mode():
        tokens = network.forward_tokens(IMAGES)
    torch.testing.assert_close(found["linear"], torch.cat([tokens.cls, tokens.patches.mean(1)], dim=1))
    torch.testing.assert_close(found["knn"], tokens.cls)
    assert representation.describe()["linear_features"] == "CLS token, last block, and mean patch of the last block"


@pytest.mark.parametrize(
    "spec", [replace(SPEC, class_token=False, final_norm=False), SWIN, RESNET], ids=["vit", "swin", "resnet"]
)
def test_without_cls_token(spec: BackboneSpec) -> None:
    representation = choose_representation(spec, None, None)
    found, network = features(spec, representation)
    with torch.inference_mode():
        mean = network.forward_tokens(IMAGES).patches.mean(1)
    torch.testing.assert_close(found["linear"], mean)
    torch.testing.assert_close(found["knn"], mean)
    assert "the backbone has no CLS token" in representation.describe()["knn_features"]


def test_blocks_of_a_vit_without_cls_token() -> None:
    spec = replace(SPEC, class_token=False)
    found, network = features(spec, choose_representation(spec, 2, None))
    with torch.inference_mode():
        tokens, _ = network._embed(IMAGES)
        earlier = network.norm(network.blocks[:-1](tokens)).mean(1)
    torch.testing.assert_close(found["linear"], torch.cat([earlier, found["knn"]], dim=1))


@pytest.mark.parametrize(
    ("spec", "blocks", "mean_patch", "message"),
    [
        (SPEC, 6, None, "linear_blocks=6: this backbone has 5 blocks"),
        (SWIN, 2, None, "only a ViT's blocks"),
        (RESNET, None, True, "no CLS token"),
    ],
)
def test_what_a_backbone_does_not_have(spec: BackboneSpec, blocks: int | None, mean_patch: bool | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_representation(spec, blocks, mean_patch)


def test_a_shallow_vit_gives_all_blocks(tmp_path: Path) -> None:
    assert choose_representation(replace(SPEC, depth=2), None, None).blocks == 2


def test_convolutions_are_not_rounded_to_tf32() -> None:
    extractor = FeatureExtractor(build_backbone(RESNET), choose_representation(RESNET, None, None), CPU)
    allowed = []
    hook = extractor.backbone.get_submodule("conv1").register_forward_pre_hook(
        lambda *_: allowed.append(torch.backends.cudnn.allow_tf32)
    )
    extractor(IMAGES)
    hook.remove()
    assert allowed == [False]
    assert torch.backends.cudnn.allow_tf32
