"""Features for propagation from backbones with registers and patches of 14 pixels."""

import pytest
import torch

from backbones.build import build_backbone
from backbones.file import load_strictly
from eval.davis.features import FeatureExtractor
from tests.layouts import REGISTERS, weights_of
from tests.layouts.dinov3 import DINOV3


@pytest.fixture(scope="module")
def extract() -> FeatureExtractor:
    network = build_backbone(REGISTERS)
    load_strictly(network, weights_of(REGISTERS))
    return FeatureExtractor(network, None, torch.device("cpu"))


@pytest.mark.parametrize("block", [None, 0, 1])
def test_registers_are_no_features(extract: FeatureExtractor, block: int | None) -> None:
    chosen = FeatureExtractor(extract.backbone, block, torch.device("cpu"))
    features_hwD = chosen(torch.rand(3, 42, 84, generator=torch.Generator().manual_seed(0)))
    assert features_hwD.shape == (3, 6, REGISTERS.embed_dim)
    torch.testing.assert_close(features_hwD.norm(dim=-1), torch.ones(3, 6))


def test_dinov3() -> None:
    network = build_backbone(DINOV3)
    load_strictly(network, weights_of(DINOV3))
    extract = FeatureExtractor(network, None, torch.device("cpu"))
    assert extract.describe() == "after the last of 2 blocks, after the final norm"
    image_3HW = torch.rand(3, 48, 96, generator=torch.Generator().manual_seed(0))
    patches_ND = network.forward_tokens(image_3HW[None]).patches[0].detach()
    wanted_ND = torch.nn.functional.normalize(patches_ND, dim=-1)
    torch.testing.assert_close(extract(image_3HW).flatten(0, 1), wanted_ND, atol=1e-5, rtol=1e-5)


def test_a_size_that_does_not_fit_names_the_way_out(extract: FeatureExtractor) -> None:
    assert (extract.stride, extract.input_multiple) == (14, 14)
    with pytest.raises(ValueError, match=r"480 x 832 is not a multiple of the patch size 14; .*--protocol fixed"):
        extract(torch.rand(3, 480, 832))
