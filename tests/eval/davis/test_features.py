"""Features for propagation from backbones with registers and patches of 14 pixels."""

import pytest
import torch

from backbones.build import build_backbone
from backbones.file import load_strictly
from backbones.spec import BackboneSpec
from eval.davis.features import FeatureExtractor, check_sizes
from eval.davis.protocol import PropagationSettings
from tests.eval.davis.conftest import SPECS
from tests.layouts import DINOV3, REGISTERS, weights_of


@pytest.fixture(scope="module")
def extract() -> FeatureExtractor:
    network = build_backbone(REGISTERS)
    load_strictly(network, weights_of(REGISTERS))
    return FeatureExtractor(network, None, torch.device("cpu"))


@pytest.mark.parametrize("block", [None, 0, 1])
def test_registers_are_no_features(extract: FeatureExtractor, block: int | None) -> None:
    chosen = FeatureExtractor(extract.backbone, block, torch.device("cpu"))
    features_BhwD = chosen(torch.rand(2, 3, 42, 84, generator=torch.Generator().manual_seed(0)))
    assert features_BhwD.shape == (2, 3, 6, REGISTERS.embed_dim)
    torch.testing.assert_close(features_BhwD.norm(dim=-1), torch.ones(2, 3, 6))


def test_dinov3() -> None:
    network = build_backbone(DINOV3)
    load_strictly(network, weights_of(DINOV3))
    extract = FeatureExtractor(network, None, torch.device("cpu"))
    assert extract.describe() == "after the last of 2 blocks, after the final norm"
    images_B3HW = torch.rand(2, 3, 48, 96, generator=torch.Generator().manual_seed(0))
    patches_BND = network.forward_tokens(images_B3HW).patches.detach()
    wanted_BND = torch.nn.functional.normalize(patches_BND, dim=-1)
    torch.testing.assert_close(extract(images_B3HW).flatten(1, 2), wanted_BND, atol=1e-5, rtol=1e-5)


def test_only_few_positions_go_in_pairs(extract: FeatureExtractor) -> None:
    assert extract.stride == 14
    assert [extract.frames_at_once(14 * rows, 14 * 64) for rows in (1, 64, 65)] == [2, 2, 1]


def test_a_size_that_does_not_fit_names_the_way_out(extract: FeatureExtractor) -> None:
    assert (extract.stride, extract.input_multiple) == (14, 14)
    with pytest.raises(ValueError, match=r"480 x 832 is not a multiple of the patch size 14; .*--protocol fixed"):
        extract(torch.rand(1, 3, 480, 832))


def test_convolutions_are_not_rounded_to_tf32(extract: FeatureExtractor) -> None:
    allowed = []
    hook = extract.backbone.get_submodule("patch_embed.proj").register_forward_pre_hook(
        lambda *_: allowed.append(torch.backends.cudnn.allow_tf32)
    )
    extract(torch.rand(1, 3, 42, 84))
    hook.remove()
    assert allowed == [False]
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("spec", [REGISTERS, DINOV3, *SPECS.values()])
def test_sizes_are_checked_for_every_family(spec: BackboneSpec) -> None:
    check_sizes(spec, [(64, 96), (96, 64)], PropagationSettings(short_side=64, protocol="fixed"))
    with pytest.raises(ValueError, match=r"taps \[9\]"):
        check_sizes(spec, [(64, 96)], PropagationSettings(short_side=64, protocol="fixed", block=9))
