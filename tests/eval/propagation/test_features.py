"""From a frame's file to features, by the published protocol and the fixed one."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from backbones.build import network_of
from backbones.spec import DINOv3Spec, ViTSpec
from eval.propagation.features import FeatureExtractor, check_sizes, input_size, read_frame
from eval.propagation.protocol import RULES, PropagationSettings, Rules
from tests.layouts import DINOV3, REGISTERS, weights_of
from tests.references import davis_propagation as reference

PUBLISHED, FIXED, DINOV3_RULES, CROPMAE = (RULES[name] for name in ("published", "fixed", "dinov3", "cropmae"))
UP = PropagationSettings(round_up=True).rules
CPU = torch.device("cpu")
PIXELS = np.random.default_rng(0).integers(0, 256, (100, 170, 3), np.uint8)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"topk": 0}, {"n_last_frames": -1}, {"short_side": 63}, {"block": -1}),
        *({"temperature": value} for value in (0.0, float("nan"), float("inf"))),
    ],
)
def test_impossible_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PropagationSettings(**wrong)


@pytest.mark.parametrize(
    ("rules", "multiple", "original", "expected"),
    [
        (PUBLISHED, 16, (480, 854), (480, 832)),
        (PUBLISHED, 16, (480, 910), (480, 896)),
        (PUBLISHED, 16, (480, 1152), (480, 1152)),
        (PUBLISHED, 16, (1080, 1920), (480, 832)),
        (PUBLISHED, 16, (854, 480), (832, 480)),
        (FIXED, 16, (480, 854), (480, 848)),
        (FIXED, 8, (480, 854), (480, 856)),
        (FIXED, 14, (480, 480), (476, 476)),
        (UP, 14, (480, 854), (490, 854)),
        (UP, 14, (480, 910), (490, 910)),
        (UP, 16, (1920, 1080), (864, 480)),
        (DINOV3_RULES, 14, (480, 854), (966, 1722)),
        (DINOV3_RULES, 14, (480, 480), (966, 966)),
        (CROPMAE, 16, (480, 854), (480, 880)),
        (CROPMAE, 16, (854, 480), (480, 880)),
    ],
)
def test_the_size_of_frames_is_the_protocols(
    rules: Rules, multiple: int, original: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert input_size(*original, rules, multiple) == expected


def test_a_frame_is_read_as_the_authors_read_it(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "00007.jpg"), PIXELS)
    found = read_frame(tmp_path / "00007.jpg", (480, 768), PUBLISHED)
    torch.testing.assert_close(found, reference.read_frame(tmp_path / "00007.jpg")[0], rtol=0, atol=1e-6)
    # 2,000 bytes after the end marker were refused here, and nowhere else.
    with (tmp_path / "00007.jpg").open("ab") as stream:
        stream.write(bytes(2000))
    assert torch.equal(read_frame(tmp_path / "00007.jpg", (480, 768), PUBLISHED), found)


@pytest.mark.parametrize("rules", [PUBLISHED, DINOV3_RULES])
def test_a_damaged_frame_is_named(rules: Rules, tmp_path: Path) -> None:
    path = tmp_path / "00001.jpg"
    with pytest.raises(ValueError, match=r"00001\.jpg: no such frame"):
        read_frame(path, (480, 768), rules)
    for content in (cv2.imencode(".jpg", PIXELS)[1].tobytes()[:5000], b"", b"not an image"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"00001\.jpg: (not a JPEG, or a damaged|missing or damaged image)"):
            read_frame(path, (480, 768), rules)


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("rules", [PUBLISHED, DINOV3_RULES, CROPMAE])
def test_pixels_stay_as_they_are_stored(orientation: int, rules: Rules, tmp_path: Path) -> None:
    """Masks are drawn on stored pixels; OpenCV turned frames by their EXIF orientation, and the masks not."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(PIXELS).save(tmp_path / "plain.jpg")
    turned, plain = (read_frame(tmp_path / f"{name}.jpg", (64, 64), rules) for name in ("turned", "plain"))
    assert torch.equal(turned, plain)


def test_only_the_fixed_protocol_has_the_deviation_of_training(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "white.jpg"), np.full((64, 64, 3), 255, np.uint8))
    published, fixed = (read_frame(tmp_path / "white.jpg", (64, 64), rules)[0, 0, 0] for rules in (PUBLISHED, FIXED))
    assert [published * 0.228, fixed * 0.229] == pytest.approx([1 - 0.485] * 2, rel=1e-5)


def extractor(spec: ViTSpec | DINOv3Spec, block: int | None = None) -> FeatureExtractor:
    network = network_of(spec, weights_of(spec))
    return FeatureExtractor(network, block, CPU)


@pytest.mark.parametrize("spec", [REGISTERS, DINOV3])
def test_only_patches_are_features(spec: ViTSpec | DINOv3Spec) -> None:
    extract, patch = extractor(spec), spec.patch_size
    images_B3HW = torch.rand(2, 3, 3 * patch, 6 * patch, generator=torch.Generator().manual_seed(0))
    wanted_BND = F.normalize(extract.backbone.forward_tokens(images_B3HW).patches.detach(), dim=-1)
    torch.testing.assert_close(extract(images_B3HW), wanted_BND.unflatten(1, (3, 6)), atol=1e-5, rtol=1e-5)
    for block in (0, 1):
        found_BhwD = extractor(spec, block)(images_B3HW)
        assert found_BhwD.shape == (2, 3, 6, spec.embed_dim)
        torch.testing.assert_close(found_BhwD.norm(dim=-1), torch.ones(2, 3, 6))


def test_a_size_that_does_not_fit_names_the_way_out() -> None:
    extract = extractor(REGISTERS)
    assert (extract.stride, extract.input_multiple) == (14, 14)
    # Only few positions go in pairs.
    assert [extract.frames_at_once(14 * rows, 14 * 64) for rows in (1, 64, 65)] == [2, 2, 1]
    with pytest.raises(ValueError, match=r"480 x 832 is not a multiple of the patch size 14; .*--protocol fixed"):
        check_sizes(REGISTERS, [(480, 854)], PropagationSettings())
    # Neither option goes with this protocol.
    with pytest.raises(ValueError, match=r"480 x 880 is not a multiple of .* 14; --protocol dinov3 takes sizes that fit$"):
        check_sizes(REGISTERS, [(480, 854)], PropagationSettings(protocol="cropmae"))
    check_sizes(REGISTERS, [(480, 854)], PropagationSettings(protocol="dinov3"))


def test_convolutions_are_not_rounded_to_tf32() -> None:
    extract, precision = extractor(REGISTERS), []
    convolution = extract.backbone.get_submodule("patch_embed.proj")
    convolution.register_forward_pre_hook(lambda *_: precision.append(torch.backends.cudnn.conv.fp32_precision))
    extract(torch.rand(1, 3, 42, 84))
    assert precision == ["ieee"]
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"
