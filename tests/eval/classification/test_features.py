"""From images to feature vectors: transforms, the network's outputs, and the files that keep them."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.build import build_backbone
from backbones.file import load_backbone, read_backbone_file
from backbones.spec import BackboneSpec, DINOv3Spec, ResNetSpec, SwinSpec, ViTSpec
from common.images import IMAGENET_MEAN, IMAGENET_STD
from eval.classification import features as module
from eval.classification.config import ClassificationConfig
from eval.classification.data import read_splits
from eval.classification.features import FeatureExtractor, FeatureStore, centre_crop, extract_features, random_crop_and_flip
from eval.classification.protocol import Representation, choose_representation
from tests.eval.classification.conftest import SPEC, TEST_IMAGES

Configure = Callable[..., ClassificationConfig]
CPU = torch.device("cpu")
IMAGES = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
SWIN = SwinSpec(embed_dim=16, depths=(1, 1), num_heads=(2, 2), window_size=4, image_size=32)
RESNET = ResNetSpec(layers=(1, 1, 1, 1))
DINOV3 = DINOv3Spec(embed_dim=32, depth=5, num_heads=2, patch_size=16, hidden_dim=64, register_tokens=2)
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))


@pytest.mark.parametrize(("height", "width"), [(60, 90), (90, 60), (40, 40)])
def test_centre_crop(height: int, width: int) -> None:
    image = IMAGE.resize((width, height))
    found = centre_crop(image, 0, resize=36, crop=32)
    # The shorter side becomes 36 by Pillow's bicubic filter; then the middle 32 x 32.
    scale = 36 / min(height, width)
    resized = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    pixels = np.asarray(resized, np.float32) / 255
    top, left = (pixels.shape[0] - 32) // 2, (pixels.shape[1] - 32) // 2
    expected = (pixels[top : top + 32, left : left + 32] - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    np.testing.assert_allclose(found.permute(1, 2, 0), expected, atol=1e-5)


def test_random_crops_depend_on_seed_epoch_and_image_only() -> None:
    first = random_crop_and_flip(IMAGE, 5, crop=32, seed=0, epoch=1)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert torch.equal(first, random_crop_and_flip(IMAGE, 5, crop=32, seed=0, epoch=1))
    assert torch.equal(before, torch.get_rng_state())
    for seed, epoch, index in ((1, 1, 5), (0, 2, 5), (0, 1, 6)):
        assert not torch.equal(first, random_crop_and_flip(IMAGE, index, crop=32, seed=seed, epoch=epoch))
    assert first.shape == (3, 32, 32)


def test_half_of_the_images_are_mirrored() -> None:
    ramp = Image.fromarray(np.tile(np.arange(0, 240, 4, dtype=np.uint8)[None, :, None], (60, 1, 3)))
    crops = torch.stack([random_crop_and_flip(ramp, index, crop=16, seed=0, epoch=0) for index in range(200)])
    mirrored = (crops[:, 0, :, 0].mean(1) > crops[:, 0, :, -1].mean(1)).float().mean()
    assert 0.4 < mirrored < 0.6


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
    found, network = features(DINOV3, choose_representation(DINOV3, None, None))
    with torch.inference_mode():
        intermediates = network.forward_intermediates(
            IMAGES, return_prefix_tokens=True, norm=True, output_fmt="NLC", intermediates_only=True
        )
    cls = [prefix[:, 0] for _, prefix in intermediates]
    torch.testing.assert_close(found["linear"], torch.cat(cls[-4:], dim=1))
    torch.testing.assert_close(found["knn"], cls[-1])


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (replace(SPEC, embed_dim=768, num_heads=12, depth=1), "CLS token, last block, and mean patch of the last block"),
        (replace(SPEC, class_token=False, final_norm=False), "the backbone has no CLS token"),
        (SWIN, "the backbone has no CLS token"),
        (RESNET, "the backbone has no CLS token"),
    ],
    ids=["base", "without cls", "swin", "resnet"],
)
def test_other_backbones(spec: BackboneSpec, words: str) -> None:
    representation = choose_representation(spec, None, None)
    found, network = features(spec, representation)
    with torch.inference_mode():
        tokens = network.forward_tokens(IMAGES)
    mean = tokens.patches.mean(1)
    torch.testing.assert_close(found["knn"], mean if tokens.cls is None else tokens.cls)
    torch.testing.assert_close(found["linear"], mean if tokens.cls is None else torch.cat([tokens.cls, mean], dim=1))
    assert words in representation.describe()["linear_features"]


def test_blocks_of_a_vit_without_cls_token() -> None:
    spec = replace(SPEC, class_token=False)
    found, network = features(spec, choose_representation(spec, 2, None))
    with torch.inference_mode():
        tokens, _ = network._embed(IMAGES)
        earlier = network.norm(network.blocks[:-1](tokens)).mean(1)
    torch.testing.assert_close(found["linear"], torch.cat([earlier, found["knn"]], dim=1))


def test_convolutions_are_not_rounded_to_tf32() -> None:
    extractor = FeatureExtractor(build_backbone(RESNET), choose_representation(RESNET, None, None), CPU)
    allowed = []
    convolution = extractor.backbone.get_submodule("conv1")
    convolution.register_forward_pre_hook(lambda *_: allowed.append(torch.backends.cudnn.allow_tf32))
    extractor(IMAGES)
    assert allowed == [False]
    assert torch.backends.cudnn.allow_tf32


def test_features_that_are_not_finite() -> None:
    network = build_backbone(SPEC)
    network.get_parameter("norm.weight").data[3] = torch.nan
    with pytest.raises(ValueError, match="not finite; its weights are damaged"):
        FeatureExtractor(network, choose_representation(SPEC, None, None), CPU)(IMAGES)


class Counting(FeatureExtractor):
    """Counts the images that go through the backbone."""

    images = 0
    fails_after = 10**9

    def __call__(self, images_B3HW: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.images >= self.fails_after:
            raise KeyboardInterrupt
        self.images += len(images_B3HW)
        return super().__call__(images_B3HW)


Stores = dict[str, FeatureStore]


def extract(config: ClassificationConfig, fails_after: int = 10**9) -> tuple[Stores, Stores, Counting]:
    extractor = Counting(load_backbone(config.backbone), choose_representation(SPEC, None, None), CPU)
    extractor.fails_after = fails_after
    splits = read_splits(config.data, "train", "val", "")
    return *extract_features(config, splits, read_backbone_file(config.backbone).sha256, extractor), extractor


def all_rows(store: FeatureStore) -> torch.Tensor:
    return torch.cat(list(store.blocks(1)))


def test_rows_are_the_images_features_in_order(configure: Configure) -> None:
    config = configure(augment=False)
    train, test, extractor = extract(config)
    splits = read_splits(config.data, "train", "val", "")
    inputs = [centre_crop(splits.test.source[index], index, resize=36, crop=32) for index in range(len(splits.test))]
    expected = extractor(torch.stack(inputs))
    assert set(train) == set(test) == {"knn", "linear"}
    for name in ("knn", "linear"):
        torch.testing.assert_close(all_rows(test[name]), expected[name])


def test_each_image_goes_through_the_backbone_once(configure: Configure) -> None:
    train, _, extractor = extract(configure())
    # The probe's training features are wanted only where it does not augment.
    assert (extractor.images, set(train)) == (42, {"knn"})
    assert extract(configure())[2].images == 0
    assert extract(configure(augment=False))[2].images == 27
    output = configure().output
    assert extract(configure(epochs=9, neighbours=[3], output=output / "other", cache=output / "features"))[2].images == 0


def test_a_changed_input_never_meets_old_features(configure: Configure) -> None:
    config = configure(classifiers=["knn"])
    before = all_rows(extract(config)[1]["knn"])
    assert extract(configure(classifiers=["knn"], crop=24))[2].images == 42
    path = config.data / "val/blue/0.png"
    pixels = np.asarray(Image.open(path))
    Image.fromarray(np.ascontiguousarray(pixels[::-1])).save(path)
    _, test, extractor = extract(config)
    assert extractor.images == 15
    changed = (all_rows(test["knn"]) != before).any(1)
    assert changed.tolist() == [True] + [False] * (3 * TEST_IMAGES - 1)
    os.utime(path, ns=(1, 1))  # the same size and another time of change is another file too
    assert extract(config)[2].images == 15


def test_an_interrupted_extraction_continues(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_PER_FILE", 4)
    config = configure(classifiers=["knn"], extraction_batch_size=3)
    with pytest.raises(KeyboardInterrupt):
        extract(config, fails_after=10)  # two files and half of the third are done
    train, test, extractor = extract(config)
    assert extractor.images == 42 - 8
    again = configure(classifiers=["knn"], extraction_batch_size=3, output=config.output / "other")
    other_train, other_test, _ = extract(again)
    assert torch.equal(all_rows(train["knn"]), all_rows(other_train["knn"]))
    assert torch.equal(all_rows(test["knn"]), all_rows(other_test["knn"]))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_decoded_is_named(configure: Configure, workers: int) -> None:
    config = configure(workers=workers)
    path = config.data / "val/green/2.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"^\S*val/green/2.png: cannot be decoded \(.*\); repair or replace it$"):
        extract(config)


def test_a_store_gives_back_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_PER_FILE", 4)
    rows = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    store = FeatureStore(tmp_path, {"images": "a"}, len(rows))
    store.write(0, rows[:4])
    with pytest.raises(ValueError, match="2 files of features are not there; several machines must share --cache"):
        store.finish()
    assert not store.is_complete()
    store.write(1, rows[4:8])
    store.write(2, rows[8:])
    store.finish()
    for rows_per_block, count in ((1, 3), (5, 2), (100, 1)):
        blocks = list(store.blocks(rows_per_block))
        assert len(blocks) == count
        assert torch.equal(torch.cat(blocks), torch.from_numpy(rows))
    indices = torch.tensor([9, 0, 5, 5, 8, 1])
    np.testing.assert_array_equal(store.rows(indices), rows[indices.numpy()])
    for images, count in (("a", 10), ("b", 10), ("a", 11)):
        assert FeatureStore(tmp_path, {"images": images}, count).is_complete() == ((images, count) == ("a", 10))
